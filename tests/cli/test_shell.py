"""The prompt's lines."""

from __future__ import annotations

import pytest

from kv.cli.shell import COMMANDS, Line, node_name, parse
from kv.errors import InvalidArgument


def test_lines_are_read_as_a_shell_reads_them() -> None:
    """Words may be quoted; an empty line or a comment is nothing."""
    assert parse("put a 'two words'") == Line("put", ("a", "two words"))
    assert parse("scan") == Line("scan", ())
    assert parse("   ") is None
    assert parse("# later") is None


@pytest.mark.parametrize("text", ["put a", "put a b c", "get", "nosuch", "put 'a", "kill", "status now"])
def test_what_makes_no_sense_is_refused(text: str) -> None:
    """An unknown word or a wrong number of arguments says what is right."""
    with pytest.raises(InvalidArgument):
        parse(text)


def test_nodes_are_named_by_number_or_name() -> None:
    """`kill 2` and `kill n2` mean the same node."""
    assert node_name("2") == node_name("n2") == "n2"


def test_every_command_has_help() -> None:
    """The usage of each command begins with its name."""
    for name, command in COMMANDS.items():
        assert command.usage.split()[0] == name
        assert command.help
