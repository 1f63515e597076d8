"""The prompt of `kv demo`: a few words to read and write keys and to kill and start nodes."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kv.cli import output
from kv.cli.cluster import NODE_HEADERS, PARTITION_HEADERS, node_rows, partition_rows
from kv.cli.cluster_process import LocalCluster
from kv.cli.text import show, to_bytes
from kv.client import AsyncClient, Evidence
from kv.errors import InvalidArgument, KVError

PROMPT: Final = "kv> "
SCAN_ITEMS_MAX: Final = 200
"""The prompt is for looking; `kv scan` reads everything."""


@dataclass(frozen=True, slots=True)
class Line:
    """A command and its arguments."""

    name: str
    arguments: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> Line | None:
    """Return the command in a line, None for an empty one; raise `InvalidArgument` for what makes no sense."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise InvalidArgument(f"cannot read the line: {error}") from error
    if not words:
        return None
    name, *rest = words
    command = COMMANDS.get(name)
    if command is None:
        raise InvalidArgument(f"there is no command {name!r}: {', '.join(COMMANDS)}")
    arguments, options = _split(command, rest)
    if not command.arguments_min <= len(arguments) <= command.arguments_max:
        raise InvalidArgument(f"usage: {command.usage}")
    return Line(name, tuple(arguments), options)


def _split(command: Command, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Part the options, a name and a value each, from the arguments."""
    arguments: list[str] = []
    options: dict[str, str] = {}
    left = iter(words)
    for word in left:
        if not word.startswith("--"):
            arguments.append(word)
            continue
        option, value = word[2:].replace("-", "_"), next(left, None)
        if option not in command.options or option in options or value is None:
            raise InvalidArgument(f"usage: {command.usage}")
        options[option] = value
    return arguments, options


class Shell:
    """What the commands act on. Each returns False to end the conversation."""

    def __init__(self, cluster: LocalCluster, client: AsyncClient) -> None:
        self._cluster = cluster
        self._client = client

    async def execute(self, line: Line) -> bool:
        """Run one command; raises `KVError` for what failed."""
        return await COMMANDS[line.name].run(self, *line.arguments, **line.options)

    async def put(self, key: str, value: str, write_level: str | None = None) -> bool:
        """Write one key."""
        reply = await self._client.put(to_bytes(key), to_bytes(value), write_level=write_level)
        output.line(f"ok, revision {reply.revision}, {served(reply.evidence)}")
        return True

    async def get(self, key: str, level: str | None = None, prefer: str | None = None) -> bool:
        """Read one key."""
        reading = await self._client.read(to_bytes(key), level=level, prefer=prefer)
        item = reading.item
        found = "(no such key)" if item is None else f"{show(item.value)}  (revision {item.mod_revision})"
        output.line(f"{found}, {served(reading.evidence)}")
        for answer in reading.answers:
            output.line(f"   {answer.node} is at index {answer.index}, {served(answer)}")
        return True

    async def delete(self, key: str, write_level: str | None = None) -> bool:
        """Remove one key."""
        reply = await self._client.delete(to_bytes(key), write_level=write_level)
        output.line(f"{'deleted' if reply.deleted else '(no such key)'}, {served(reply.evidence)}")
        return True

    async def increment(self, key: str, delta: str = "1") -> bool:
        """Add to an integer."""
        if not delta.removeprefix("-").isdecimal():
            raise InvalidArgument(f"{delta!r} is no whole number")
        reply = await self._client.increment(to_bytes(key), int(delta))
        output.line(f"{reply.value}  (revision {reply.revision}), {served(reply.evidence)}")
        return True

    async def append(self, key: str, value: str) -> bool:
        """Add to the end of a value."""
        reply = await self._client.append(to_bytes(key), to_bytes(value))
        output.line(f"ok, {reply.length} bytes now, revision {reply.revision}, {served(reply.evidence)}")
        return True

    async def outcome(self, token: str) -> bool:
        """Tell what became of a write."""
        found = await self._client.outcome(token)
        output.line(f"{found.state.name.lower()}, {served(found.evidence)}")
        return True

    async def scan(self, prefix: str = "", level: str | None = None, prefer: str | None = None) -> bool:
        """Read the first keys in order."""
        items = self._client.scan(
            prefix=to_bytes(prefix), limit=SCAN_ITEMS_MAX + 1, level=level, prefer=prefer
        )
        rows = [(show(item.key), show(item.value), str(item.mod_revision)) async for item in items]
        output.table(("key", "value", "revision"), rows[:SCAN_ITEMS_MAX])
        if len(rows) > SCAN_ITEMS_MAX:
            output.line(f"(only the first {SCAN_ITEMS_MAX}; `kv scan` shows all)")
        return True

    async def status(self) -> bool:
        """Show the nodes."""
        view = await self._cluster.view()
        if view.cluster_map is None:
            output.line("no node answers")
        else:
            output.table(NODE_HEADERS, node_rows(view))
        return True

    async def map(self) -> bool:
        """Show the partitions."""
        view = await self._cluster.view()
        if view.cluster_map is None:
            output.line("no node answers")
        else:
            output.table(PARTITION_HEADERS, partition_rows(view))
        return True

    async def kill(self, node: str) -> bool:
        """End a node by SIGKILL."""
        name = node_name(node)
        pid = self._cluster.pid(name)
        if pid is None:
            output.line(f"{name} is down already")
            return True
        self._cluster.kill(name)
        output.line(
            f"killed {name} (pid {pid}); {len(self._cluster.running)} of {len(self._cluster.specs)} run"
        )
        return True

    async def start(self, node: str) -> bool:
        """Start a node that is down."""
        name = node_name(node)
        self._cluster.start(name)
        output.line(f"{name} runs with pid {self._cluster.pid(name)}")
        return True

    async def help(self) -> bool:
        """List the commands."""
        output.table(
            ("", ""), [(command.usage, command.help) for command in COMMANDS.values()], show_header=False
        )
        return True

    async def quit(self) -> bool:
        """Stop the nodes and leave."""
        return False


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the prompt."""

    run: Callable[..., Awaitable[bool]]
    usage: str
    help: str
    arguments_min: int
    arguments_max: int
    options: tuple[str, ...] = ()


_READ: Final = ("level", "prefer")
_READ_USAGE: Final = "[--level LEVEL] [--prefer REPLICA]"
_WRITE: Final = ("write_level",)
_WRITE_USAGE: Final = "[--write-level all]"

COMMANDS: Final[Mapping[str, Command]] = {
    "put": Command(Shell.put, f"put KEY VALUE {_WRITE_USAGE}", "write one key", 2, 2, _WRITE),
    "get": Command(Shell.get, f"get KEY {_READ_USAGE}", "read one key", 1, 1, _READ),
    "delete": Command(Shell.delete, f"delete KEY {_WRITE_USAGE}", "remove one key", 1, 1, _WRITE),
    "increment": Command(Shell.increment, "increment KEY [DELTA]", "add to an integer", 1, 2),
    "append": Command(Shell.append, "append KEY VALUE", "add to the end of a value", 2, 2),
    "outcome": Command(Shell.outcome, "outcome TOKEN", "tell what became of a write", 1, 1),
    "scan": Command(Shell.scan, f"scan [PREFIX] {_READ_USAGE}", "read the first keys in order", 0, 1, _READ),
    "status": Command(Shell.status, "status", "show the nodes", 0, 0),
    "map": Command(Shell.map, "map", "show the partitions", 0, 0),
    "kill": Command(Shell.kill, "kill N", "end node N by SIGKILL", 1, 1),
    "start": Command(Shell.start, "start N", "start node N again", 1, 1),
    "help": Command(Shell.help, "help", "show this", 0, 0),
    "quit": Command(Shell.quit, "quit", "stop the nodes and leave", 0, 0),
}


def served(evidence: Evidence) -> str:
    """Return who served, and what the level promised, in words."""
    level = "" if evidence.level is None else f", {evidence.level.name.lower()}"
    age = "" if evidence.age_ms is None else f", at most {evidence.age_ms} ms old"
    return f"partition {evidence.partition} on {evidence.node}{level}{age}"


def node_name(text: str) -> str:
    """Return the node that "2" or "n2" means."""
    return f"n{text}" if text.isascii() and text.isdigit() else text


def run_shell(cluster: LocalCluster) -> None:
    """Converse until `quit`, the end of the input, or Ctrl-C."""
    try:
        import readline  # noqa: F401, PLC0415 - its import gives input() history and editing
    except ImportError:
        output.note("(no line editing: this Python has no readline)")
    output.line('type "help" for the commands')
    with asyncio.Runner() as runner:
        client = AsyncClient.from_url(cluster.url)
        runner.run(client.__aenter__())
        try:
            _converse(Shell(cluster, client), runner)
        finally:
            runner.run(client.close())


def _converse(shell: Shell, runner: asyncio.Runner) -> None:
    """Read on the main thread, between the runs of the loop, so that Ctrl-C reaches the one that waits."""
    while True:
        try:
            line = parse(input(PROMPT))
            if line is not None and not runner.run(shell.execute(line)):
                return
        except KVError as error:
            output.note(output.explain(error))
        except EOFError:
            output.line()
            return
