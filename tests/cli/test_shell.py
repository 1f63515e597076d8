"""The prompt's lines."""

from __future__ import annotations

from typing import cast

import pytest

from kv.cli.cluster_process import LocalCluster
from kv.cli.shell import COMMANDS, Line, Shell, node_name, parse
from kv.client import AsyncClient
from kv.errors import InvalidArgument
from tests.client.fakes import FakeCluster, FakeTransport
from tests.client.virtual import run_virtual


def test_lines_are_read_as_a_shell_reads_them() -> None:
    """Words may be quoted; an empty line or a comment is nothing."""
    assert parse("put a 'two words'") == Line("put", ("a", "two words"))
    assert parse("scan") == Line("scan", ())
    assert parse("   ") is None
    assert parse("# later") is None


def test_options_have_a_value() -> None:
    """Levels and preferences stand anywhere behind the command, each with its value."""
    line = parse("get a --level bounded:200ms --prefer n2")
    assert line == Line("get", ("a",), {"level": "bounded:200ms", "prefer": "n2"})
    assert parse("put --write-level all a b") == Line("put", ("a", "b"), {"write_level": "all"})


@pytest.mark.parametrize(
    "text",
    [
        *("put a", "put a b c", "get", "nosuch", "put 'a", "kill", "status now"),
        *("get a --level", "get a --write-level all", "get a --level x --level y", "status --level x"),
        *("increment", "append a", "outcome"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    """An unknown word or a wrong number of arguments says what is right."""
    with pytest.raises(InvalidArgument):
        parse(text)


def test_nodes_are_named_by_number_or_name() -> None:
    """`kill 2` and `kill n2` mean the same node."""
    assert node_name("2") == node_name("n2") == "n2"


def test_commands_say_who_served(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command on keys does what it says, and shows the level and the age that the reply had."""
    fake = FakeCluster(partitions=1)
    leader, follower, _ = fake.map.partitions[0].replicas

    async def main() -> None:
        async with AsyncClient(["n1:7001"], transport=FakeTransport(fake)) as client:
            shell = Shell(cast(LocalCluster, None), client)
            for text in (
                "put a 1 --write-level all",
                f"get a --level stale --prefer {follower}",
                "get a --level all",
                "increment n -3",
                "append s xyz",
                "scan a --level session",
                "delete a",
                "get a",
                "outcome w1-1-5-1-0-0",
            ):
                line = parse(text)
                assert line is not None
                assert await shell.execute(line)
            wrong = Line("increment", ("n", "many"))
            with pytest.raises(InvalidArgument, match="no whole number"):
                await shell.execute(wrong)

    run_virtual(main)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ok, revision 4, partition 1 on {leader}"
    assert lines[1] == f"1  (revision 4), partition 1 on {follower}, stale, at most 7 ms old"
    assert sum("is at index" in line for line in lines) == 3
    assert lines[-4].split()[:2] == ["a", "1"]
    assert lines[-3].startswith("deleted")
    assert lines[-2].startswith(f"(no such key), partition 1 on {leader}, linearizable")
    assert lines[-1].startswith("unknown, partition 1")


def test_every_command_has_help() -> None:
    """The usage of each command begins with its name."""
    for name, command in COMMANDS.items():
        assert command.usage.split()[0] == name
        assert command.help
