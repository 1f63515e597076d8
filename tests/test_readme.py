"""The README tells the truth: its examples run against real nodes, its tables agree with the code.

Everything is taken from README.md itself: ```python blocks, the `$ kv` and `$ curl` lines of ```console
blocks, the TOML example, and the tables that name a constant in their last column.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from kv.cli.app import EPILOG, build
from kv.cli.cluster_process import LocalCluster, node_environment
from kv.cli.settings import cli_table, node_table
from kv.client import parse_url
from kv.config import NodeConfig
from kv.errors import ExitCode, KVError
from tests.integration import support

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
GRPC_PORTS: Final = {"7001": "n1", "7003": "n2", "7005": "n3"}
HTTP_PORTS: Final = {"7002": "n1", "7004": "n2", "7006": "n3"}
UNITS: Final = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "s": 1, "ms": 1, "": 1}
CHANGING: Final = frozenset({"revision", "create_revision", "version"})
RUN_TIMEOUT_S: Final = 30


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the README in `language`, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shown() -> list[tuple[str, str]]:
    """Return each command of the console blocks with the line of output below it, if there is one."""
    lines = [line for block in blocks("console") for line in (*block.splitlines(), "$")]
    return [
        (line[2:], "" if after.startswith("$") else after)
        for line, after in pairwise(lines)
        if line.startswith("$ ")
    ]


KV_LINES: Final = [line for line, _ in shown() if line.startswith("kv ")]
CURL_LINES: Final = [(line, below) for line, below in shown() if line.startswith("curl ")]


def table(header: str) -> list[list[str]]:
    """Return the rows of the table whose header line begins with `header`, as cells."""
    lines = README.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def resolve(path: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Return the value of a dotted path: a constant of a module, or the default of a field of a class in one."""
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            found = default(found, name)
        return found
    raise AssertionError(f"no module in {path}")


def default(owner: Any, name: str) -> Any:  # noqa: ANN401 - whatever stands there
    """Return an attribute, or the default of a field of a configuration class."""
    if owner is NodeConfig:
        return NodeConfig.model_fields[name].default
    if dataclasses.is_dataclass(owner):
        return next(field.default for field in dataclasses.fields(owner) if field.name == name)
    return getattr(owner, name)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Give a cluster like that of `kv demo`, on other ports."""
    with support.started(tmp_path_factory.mktemp("readme")) as cluster:
        yield cluster


def moved(text: str, cluster: LocalCluster) -> str:
    """Return `text` with the README's addresses replaced by those of `cluster`."""

    def address(found: re.Match[str]) -> str:
        port = found[1]
        if port in GRPC_PORTS:
            return cluster.specs[GRPC_PORTS[port]].address
        return cluster.specs[HTTP_PORTS[port]].http_address

    return re.sub(r"127\.0\.0\.1:(\d+)", address, text)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run(demo: LocalCluster, number: int) -> None:
    """Each Python example runs as it stands and prints something."""
    done = subprocess.run(
        [sys.executable, "-c", moved(blocks("python")[number], demo)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        env=node_environment(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def status_of(words: list[str]) -> int:
    """Run `kv` with these arguments in this process and return the exit status that it would end with."""
    try:
        result: int | None = build().main(args=words, prog_name="kv", standalone_mode=False)
    except KVError as error:
        return int(error.exit_code)
    return result or 0


def test_shell_examples_run(demo: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `kv` line of the README, in its order, ends with the status that stands beside it, 0 if none does."""
    assert len(KV_LINES) > 5
    monkeypatch.setenv("KV_ENDPOINTS", demo.url_of("n1"))
    for line in KV_LINES:
        found = re.search(r"# exit (\d+)", line)
        expected = int(found[1]) if found else 0
        assert status_of(shlex.split(line, comments=True)[1:]) == expected, line


def request_of(line: str) -> tuple[str, str, str | None]:
    """Return method, URL and body of a curl command line; anything that this does not know fails."""
    words = iter(shlex.split(line)[1:])
    method, url, body = "GET", "", None
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-d":
                body = next(words)
            case _:
                assert not word.startswith("-"), f"{word} in {line}"
                url = word
    return method, url, body


def steady(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a reply without what differs from run to run; the fields themselves must be there."""
    return {name: "any" if name in CHANGING else value for name, value in fields.items()}


def test_http_examples_answer_as_shown(demo: LocalCluster) -> None:
    """Each curl line gets the reply that the README shows, up to the numbers of revisions."""
    assert len(CURL_LINES) >= 5
    for line, below in CURL_LINES:
        method, url, body = request_of(moved(line, demo))
        reply = httpx.request(method, url, content=body, timeout=RUN_TIMEOUT_S).json()
        expected = json.loads(below)
        if "error" in expected:
            assert reply["error"]["reason"] == expected["error"]["reason"]
            assert reply["error"].keys() == expected["error"].keys()
        else:
            assert steady(reply) == steady(expected), line


@pytest.mark.parametrize(
    ("name", "value", "constant"), table("limit"), ids=[row[0] for row in table("limit")]
)
def test_limits_are_those_of_the_code(name: str, value: str, constant: str) -> None:
    """Each limit in the table is the constant, or the default of the setting, that stands beside it."""
    found = re.fullmatch(r"(?:1 to )?(\d+) ?([A-Za-z]*)", value)
    assert found, f"{name}: cannot read {value!r}"
    assert resolve(constant.strip("`")) == int(found[1]) * UNITS[found[2]], name


def test_exit_statuses_are_those_of_the_code() -> None:
    """The table of exit statuses has each status of the code once, with its number; so has the command's help."""
    rows = [(int(status), constant.strip("`")) for status, _, constant in table("exit status")]
    named = {constant: status for status, constant in rows if constant}
    assert named == {constant: int(resolve(constant)) for constant in named}
    assert {int(code) for code in ExitCode} < {status for status, _ in rows}
    assert all(f"{int(code)} " in EPILOG for code in ExitCode)


def test_toml_example_is_a_configuration() -> None:
    """The TOML example is accepted for a node and for the command line."""
    (text,) = blocks("toml")
    content = tomllib.loads(text)
    config = NodeConfig(**{**node_table(content), "node_id": "n1"})
    assert config.replication_factor == 3
    assert parse_url(cli_table(content)["endpoints"]).endpoints


def test_serve_examples_are_accepted() -> None:
    """Each `kv serve` line of the README is a valid configuration for the three nodes that it names."""
    lines = re.findall(r"^    kv (serve .+)$", README, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        pairs = iter(shlex.split(line)[1:])
        flags = {name.removeprefix("--").replace("-", "_"): next(pairs) for name in pairs}
        config = NodeConfig(**flags)  # type: ignore[arg-type]  # text, as the command line has it
        assert config.listen == config.peers[config.node_id]


def test_named_settings_and_commands_exist() -> None:
    """Settings and commands that the README names in running text are there."""
    named = re.findall(r"`([a-z]+_[a-z_]+)`", README)
    settings = {name for name in named if name in NodeConfig.model_fields}
    assert {"peers", "zones", "partitions"} <= set(NodeConfig.model_fields)
    assert {"replication_factor", "virtual_nodes", "load_factor"} <= settings
    commands = set(build().list_commands(None))
    used = set(re.findall(r"\bkv (?:-\S+ \S+ )?(put|get|delete|scan|ring|status|serve|demo|sim)\b", README))
    assert used == {"put", "get", "delete", "scan", "ring", "status", "serve", "demo", "sim"}
    assert used <= commands


def test_links_lead_somewhere() -> None:
    """Every relative link of the documents names a file, every one inside a document a heading of it."""
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in headings, f"{document}: {target}"
            elif "://" not in target:
                assert (ROOT / target.partition("#")[0]).exists(), f"{document}: {target}"


def test_paths_in_code_style_exist() -> None:
    """Every path of the repository that the documents name is there."""
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:kv|tests|proto|tools|jepsen-style)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{document}: {path}"
