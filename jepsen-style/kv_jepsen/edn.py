"""The part of EDN (https://github.com/edn-format/edn) that histories need: read forms, write values.

Read: nil, booleans, numbers, strings, characters, keywords, symbols, vectors, lists, maps, sets, comments, `#_`,
and tags, which are dropped (`#jepsen.history.Op{...}` is its map). Written: values of `history`. No meaning here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

from kv_jepsen.history import FrozenMap, Value

_TOKEN = re.compile(
    r"""(?P<space>[\s,]+|;[^\n]*)
      | (?P<open>\#\{|[\[({])
      | (?P<close>[\])}])
      | (?P<discard>\#_)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<char>\\(?:newline|space|tab|return|u[0-9a-fA-F]{4}|.))
      | (?P<atom>[^\s,;\[\](){}"\\]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSER = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_INTEGER = re.compile(r"[+-]?\d+N?")
_FLOAT = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?M?")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\"}
_CHARS = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r"}
_SYMBOLS: dict[str, Value] = {"nil": None, "true": True, "false": False, "##NaN": None}
_KEYWORD = re.compile(r"[^\s,;\[\](){}\"\\:]+")

DEPTH_MAX = 64
"""Forms nested deeper are refused; histories nest three deep."""


DIGITS_MAX = 4000
"""Longer whole numbers are refused, before Python refuses them."""


class EdnError(ValueError):
    """Text that is not EDN.

    Attributes:
        line: from 1.
        problem: what is wrong there.
    """

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


class Keyword(str):
    """An EDN keyword without its colon. It equals the str of the same text."""

    __slots__ = ()


class _Reader:
    """A cursor over tokens; `line` follows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line = 1

    def token(self) -> tuple[str, str] | None:
        """Return kind and text of the next token that is no space, None at the end."""
        while self.position < len(self.text):
            match = _TOKEN.match(self.text, self.position)
            if match is None:
                raise EdnError(self.line, f"cannot read {self.text[self.position : self.position + 20]!r}")
            self.position = match.end()
            self.line += match.group().count("\n")
            if match.lastgroup != "space":
                return str(match.lastgroup), match.group()
        return None

    def form(self, token: tuple[str, str], depth: int = 0) -> Value:
        """Return the value that begins with `token`."""
        kind, text = token
        match kind:
            case "open":
                return self._collection(text, depth)
            case "string":
                return _unescaped(text[1:-1], self.line)
            case "char":
                return _CHARS.get(text[1:]) or _escaped(text[1:])
            case "atom" if text.startswith("#") and text not in _SYMBOLS:
                return self.form(self.expect("a value after the tag " + text), depth)
            case "atom":
                return _atom(text, self.line)
            case _:
                raise EdnError(self.line, f"{text!r} closes nothing")

    def expect(self, expected: str) -> tuple[str, str]:
        """Return the next token; `expected` names it for the error at the end of the text."""
        token = self.token()
        if token is None:
            raise EdnError(self.line, f"the text ends, {expected} was expected")
        return token

    def _collection(self, opener: str, depth: int) -> Value:
        if depth >= DEPTH_MAX:
            raise EdnError(self.line, f"nested deeper than {DEPTH_MAX}")
        closer, items, began = _CLOSER[opener], list[Value](), self.line
        while (token := self.expect(f"{closer!r} for line {began}")) != ("close", closer):
            if token[0] == "discard":
                self.form(self.expect("a value after #_"), depth + 1)
            else:
                items.append(self.form(token, depth + 1))
        return _built(opener, items, began)


def _built(opener: str, items: list[Value], line: int) -> Value:
    if opener == "#{":
        return frozenset(items)
    if opener != "{":
        return tuple(items)
    if len(items) % 2:
        raise EdnError(line, "a map has a key without a value")
    built = FrozenMap(zip(items[::2], items[1::2], strict=True))
    if 2 * len(built) != len(items):
        raise EdnError(line, "a map has a key twice")
    return built


def _atom(text: str, line: int) -> Value:
    if text.startswith(":"):
        if len(text) == 1:
            raise EdnError(line, "a keyword without a name")
        return Keyword(text[1:])
    if text in _SYMBOLS:
        return _SYMBOLS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > DIGITS_MAX:
            raise EdnError(line, f"a number of more than {DIGITS_MAX} digits")
        return int(text.rstrip("N"))
    if _FLOAT.fullmatch(text):
        return float(text.rstrip("M"))
    return text


def _escaped(code: str) -> str:
    """Return the character of `u0041`, or of itself."""
    return chr(int(code[1:], base=16)) if len(code) == 5 else code


def _unescaped(text: str, line: int) -> str:
    if "\\" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        if len(code) == 5:
            return _escaped(code)
        if code not in _ESCAPES:
            raise EdnError(line, f"unknown escape \\{code} in a string")
        return _ESCAPES[code]

    return _ESCAPE.sub(one, text)


def read_forms(text: str) -> Iterator[tuple[int, Value]]:
    """Yield the line and the value of each top-level form.

    Raises:
        EdnError: at the first thing that is not EDN, naming its line.
    """
    reader = _Reader(text)
    while (token := reader.token()) is not None:
        line = reader.line
        if token[0] == "discard":
            reader.form(reader.expect("a value after #_"))
        else:
            yield line, reader.form(token)


def written(value: Value) -> str:
    """Return `value` as EDN on one line.

    Raises:
        ValueError: the value is of no kind that histories hold.
    """
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case Keyword():
            return f":{value}" if _KEYWORD.fullmatch(value) else json.dumps(str(value), ensure_ascii=False)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int() | float() if math.isfinite(value):
            return repr(value)
        case _:
            return _written_collection(value)


def _written_collection(value: Value) -> str:
    match value:
        case tuple():
            return "[" + " ".join(map(written, value)) + "]"
        case frozenset():
            return "#{" + " ".join(sorted(map(written, value))) + "}"
        case Mapping():
            return "{" + ", ".join(f"{written(key)} {written(item)}" for key, item in value.items()) + "}"
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be written to a history: {value!r}")
