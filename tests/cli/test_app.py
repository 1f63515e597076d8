"""The command line without a cluster: parsing, precedence, exit codes, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kv import __version__
from kv.cli import main
from kv.cli.cluster_process import node_environment
from kv.cli.data import conditions, read_value
from kv.cli.output import explain
from kv.cli.settings import cli_table, client_url, node_table, read_file
from kv.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NoLeader,
    NotFound,
    ResultEvicted,
    UnknownOutcome,
)

DEAD = "127.0.0.1:1"
"""An address where nobody listens: port 1 needs root."""


@dataclass
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def kv(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs the command in this process, without the caller's KV_* variables."""
    for name in [name for name in os.environ if name.startswith("KV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str, **variables: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["kv", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        output = capfd.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return run


def test_the_module_is_the_command() -> None:
    """`python -m kv` works without an installed script, and says its version."""
    command = [sys.executable, "-m", "kv", "--version"]
    done = subprocess.run(command, capture_output=True, env=node_environment(os.environ), check=True)
    assert done.stdout.decode() == f"ringkv {__version__}\n"


def test_help_names_every_command_and_the_exit_codes(kv: Run) -> None:
    """Someone new finds all commands and what the exit codes mean."""
    shown = kv("--help").stdout
    for name in ("put", "get", "delete", "scan", "status", "ring", "serve", "demo"):
        assert f" {name} " in shown
    assert "5 outcome unknown" in " ".join(shown.split())


def test_serve_has_a_flag_for_each_setting_of_a_node() -> None:
    """Flags and settings cannot drift apart: they are made from the same class."""
    from kv.cli.serve import SECTIONS, make_command
    from kv.config import NodeConfig

    flags = {flag for parameter in make_command().params for flag in parameter.opts}
    assert dict(SECTIONS).keys() <= NodeConfig.model_fields.keys()
    assert {f"--{name.replace('_', '-')}" for name in NodeConfig.model_fields} <= flags


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("get",),
        ("-o", "xml", "get", "a"),
        ("put", "a"),
        ("put", "a", "1", "--file", "x"),
        ("put", "a", "1", "--if-absent", "--if-revision", "3"),
        ("put", "a", "1", "--if-revision", "-1"),
        ("scan", "--prefix", "a", "--end", "b"),
        ("-e", "http://x:1", "get", "a"),
        ("-e", "no-port", "get", "a"),
        ("--timeout", "soon", "-e", DEAD, "get", "a"),
        ("--config", "no/such/file.toml", "get", "a"),
        ("demo", "--exit", "--tour"),
        ("serve", "--partitions", "0"),
        ("serve", "--listen", "nowhere"),
    ],
)
def test_usage_errors_end_with_status_2(kv: Run, arguments: tuple[str, ...]) -> None:
    """What can never work is refused with status 2, a reason, and no traceback."""
    done = kv(*arguments)
    assert done.status == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr


def test_a_cluster_that_is_not_there_ends_with_status_6_or_7(kv: Run) -> None:
    """No node: status 6 where it is known at once, 7 where the client tried until the deadline."""
    assert kv("-e", DEAD, "status").status == 6
    done = kv("-e", DEAD, "--timeout", "300ms", "put", "a", "1")
    assert done.status in (6, 7), done.stderr
    assert "definite: it did not" in done.stderr


def test_flag_above_variable_above_file_above_default(kv: Run, tmp_path: Path) -> None:
    """Each source of a global option yields to the one above it."""
    file = tmp_path / "kv.toml"
    file.write_text('[cli]\nendpoints = "bad-file"\n')
    assert "'bad-file'" in kv("--config", str(file), "get", "a").stderr
    assert "'bad-file'" in kv("get", "a", KV_CONFIG=str(file)).stderr
    assert "'bad-env'" in kv("--config", str(file), "get", "a", KV_ENDPOINTS="bad-env").stderr
    assert "'bad-flag'" in kv("-e", "bad-flag", "get", "a", KV_ENDPOINTS="bad-env").stderr


def test_serve_takes_flag_above_variable_above_file(tmp_path: Path) -> None:
    """The same order holds for the settings of a node."""
    from kv.cli.serve import load

    file = tmp_path / "kv.toml"
    file.write_text(
        '[cli]\noutput = "json"\n[node]\npartitions = 3\nnode_id = "a"\npeers = "a=127.0.0.1:7001"\n'
    )
    assert load(file, {"partitions": None}).partitions == 3
    assert load(file, {"partitions": "5"}).partitions == 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KV_PARTITIONS", "4")
        assert load(file, {}).partitions == 4
        assert load(file, {"partitions": "5"}).partitions == 5


def test_tables_of_the_file(tmp_path: Path) -> None:
    """[cli] and [node] are told apart; a file without them is the node's; strangers are refused."""
    flat, tables = {"partitions": 3}, {"cli": {"output": "raw"}, "node": {"partitions": 3}}
    assert node_table(flat) == node_table(tables) == flat
    assert cli_table(flat) == {}
    assert cli_table(tables) == {"output": "raw"}
    with pytest.raises(InvalidArgument, match="not a table"):
        node_table({"node": 3})
    with pytest.raises(InvalidArgument, match="no 'ouptut'"):
        cli_table({"cli": {"ouptut": "raw"}})
    file = tmp_path / "kv.toml"
    file.write_text("[node]\n[nodee]\n")
    with pytest.raises(InvalidArgument, match="'nodee'"):
        read_file(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match="not TOML"):
        read_file(file)


def test_endpoints_may_leave_the_scheme_out() -> None:
    """host:port is enough on the command line."""
    assert client_url("a:1,b:2") == client_url("kv://a:1,b:2") == "kv://a:1,b:2"


def test_conditions_become_one_keyword() -> None:
    """Each flag is one condition, and `--if-revision 0` is one too."""
    assert conditions(False, False, None, None) == {}
    assert conditions(True, False, None, None) == {"if_absent": True}
    assert conditions(False, False, 0, None) == {"if_revision": 0}
    assert conditions(False, False, None, "x") == {"if_value": b"x"}
    with pytest.raises(InvalidArgument, match="--if-present and --if-value"):
        conditions(False, True, None, "x")


def test_values_come_from_argument_or_file(tmp_path: Path) -> None:
    """The value is given exactly once; a file is read as bytes."""
    file = tmp_path / "value"
    file.write_bytes(b"\x00\xff")
    assert read_value(None, file) == b"\x00\xff"
    assert read_value("x", None) == b"x"
    for value, path in ((None, None), ("x", file), (None, tmp_path / "missing")):
        with pytest.raises(InvalidArgument):
            read_value(value, path)


def test_errors_say_reason_outcome_and_what_to_do() -> None:
    """The text on standard error never leaves open whether the write happened."""
    assert "definite: it did not and will not happen" in explain(NoLeader("none"))
    assert "it may have happened" in explain(UnknownOutcome("lost"))
    assert "it may have happened" in explain(DeadlineExceeded("late"))
    assert "it was applied" in explain(ResultEvicted("old"))
    shown = explain(NotFound("there is no key a"))
    assert shown.splitlines()[0] == "error: NOT_FOUND: there is no key a"
    assert NotFound.hint in shown
