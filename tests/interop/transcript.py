"""The curl lines of docs/http.md and what they really get.

The page is a transcript: what differs from run to run (revisions, tokens, who leads) is replaced where a later
line uses it. A block whose first line says that nodes are away is run while they are paused. To write the page
anew after a change of what replies look like:

    python -m tests.interop.transcript
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from kv.cli.cluster_process import LocalCluster
from tests.integration import support

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "http.md"
PORTS: Final = {"7002": "n1", "7004": "n2", "7006": "n3"}
CURL_TIMEOUT_S: Final = 20

AWAY: Final = {"": (), "a-replica-is-away": ("n3",), "a-quorum-is-away": ("n2", "n3")}
"""The nodes that are paused during a block of the page, by what stands behind its language."""

CHANGING: Final = frozenset(
    {
        "attempts",
        "create_revision",
        "kv-age-ms",
        "kv-answers",
        "kv-index",
        "kv-node",
        "kv-revision",
        "kv-session-token",
        "kv-term",
        "revision",
        "token",
    }
)
"""Fields of replies, and headers, whose value differs from run to run."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What curl printed: with -i a status and headers, and a body."""

    status: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


def reply_of(text: Sequence[str]) -> Reply:
    """Return the parts of an HTTP reply as curl prints it, or as the page shows it (without the empty line)."""
    rest = [line.rstrip("\r") for line in text]
    if not (rest and rest[0].startswith("HTTP/")):
        return Reply(body="\n".join(rest))
    status, *rest = rest
    headers = {}
    while rest and (found := re.fullmatch(r"([A-Za-z-]+): (.*)", rest[0])):
        headers[found[1].lower()] = found[2]
        del rest[0]
    return Reply(status, headers, "\n".join(rest).lstrip("\n"))


@dataclass(frozen=True, slots=True)
class Line:
    """One command of the page with what the page shows below it."""

    away: str
    """What stands behind the language of its block: a key of `AWAY`."""
    command: str
    shown: tuple[str, ...]

    @property
    def text(self) -> str:
        """The line as it stands on the page, with what is below it."""
        return "\n".join([f"$ {self.command}", *self.shown, ""])

    @property
    def exit_status(self) -> int:
        """The exit status that stands beside the command, 0 if none does."""
        found = re.search(r"# exit (\d+)", self.command)
        return int(found[1]) if found else 0


def lines(text: str) -> list[Line]:
    """Return the commands of a page, in order."""
    found = []
    for away, block in re.findall(r"^```console ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            found.append(Line(away, command, tuple(shown)))
    return found


@dataclass(slots=True)
class Transcript:
    """Plays the lines of a page against a cluster and remembers what came for the values that the page shows."""

    cluster: LocalCluster
    came: dict[tuple[str, str], str] = field(default_factory=dict)
    """What really came, by the name of a field and the value that the page shows for it."""

    def play(self, found: Sequence[Line]) -> Iterator[tuple[Line, str, int, Reply]]:
        """Give each line with the command as it was run, its exit status, and the reply."""
        for away, group in groupby(found, key=lambda line: line.away):
            nodes = AWAY[away]
            if nodes:
                self.cluster.pause(*nodes)
            try:
                for line in group:
                    yield line, *self._run(line)
            finally:
                if nodes:
                    self.cluster.resume(*nodes)
            asyncio.run(self.cluster.wait_ready())

    def _run(self, line: Line) -> tuple[str, int, Reply]:
        command = re.sub(
            r"127\.0\.0\.1:(\d+)",
            lambda found: self.cluster.specs[PORTS[found[1]]].http_address,
            self.renewed(line.command),
        )
        words = shlex.split(command, comments=True)
        assert words[0] == "curl", command
        ends = time.monotonic() + CURL_TIMEOUT_S
        while True:
            done = subprocess.run(
                ["curl", "--silent", *words[1:]],
                capture_output=True,
                text=True,
                timeout=CURL_TIMEOUT_S,
                check=False,
            )
            real = reply_of(done.stdout.splitlines())
            # That the cluster was ready a moment ago does not say that this node knows every leader now.
            if "/readyz" not in command or '"error"' not in real.body or time.monotonic() > ends:
                break
            time.sleep(0.1)  # another process: there is no event to await
        self._note(reply_of(line.shown), real)
        return command, done.returncode, real

    def renewed(self, command: str) -> str:
        """Return a command with the revisions and tokens that really came."""
        for name, before, value in (
            ("revision", r'"if_revision": ', r"\d+"),
            ("token", "/outcome/", r"[\w-]+"),
            ("kv-session-token", "Kv-Session-Token: ", r"[\w.-]+"),
        ):
            command = re.sub(
                f"(?<={before}){value}",
                lambda found, name=name: self.came.get((name, found[0]), found[0]),  # type: ignore[misc]
                command,
            )
        return command

    def _note(self, shown: Reply, real: Reply) -> None:
        for name, value in shown.headers.items():
            self._note_value(name, value, real.headers.get(name))
        if shown.body and real.body:
            self._note_value("", json.loads(shown.body), json.loads(real.body))

    def _note_value(self, name: str, shown: Any, real: Any) -> None:  # noqa: ANN401 - any JSON
        if isinstance(shown, dict) and isinstance(real, dict):
            for key in shown.keys() & real.keys():
                self._note_value(key, shown[key], real[key])
        elif name in CHANGING:
            self.came[name, str(shown)] = str(real)


def written_anew(text: str, cluster: LocalCluster) -> str:
    """Return a page with the replies that its lines get now; of the headers those that it showed before."""
    transcript = Transcript(cluster)
    done, rest = "", text
    for line, _, status, real in transcript.play(lines(text)):
        assert status == line.exit_status, line.command
        names = reply_of(line.shown).headers or [name for name in real.headers if name.startswith("kv-")]
        head = [real.status, *(f"{name}: {real.headers[name]}" for name in names)] if real.status else []
        renewed = Line(line.away, transcript.renewed(line.command), (*head, real.body))
        before, found, rest = rest.partition(line.text)
        assert found, line.text
        done += before + renewed.text
    return done + rest


def main() -> None:
    """Write docs/http.md anew."""
    with tempfile.TemporaryDirectory() as directory, support.started(Path(directory)) as cluster:
        PAGE.write_text(written_anew(PAGE.read_text(encoding="utf-8"), cluster), encoding="utf-8")


if __name__ == "__main__":
    main()
