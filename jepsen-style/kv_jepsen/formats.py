"""Histories as text: our own `history.jsonl` and `history.edn`, Jepsen's etcd logs, porcupine's EDN.

`parse` recognizes the format by itself. Text in, `History` out, and back; opening files is the caller's.

- jsonl: one JSON object a line with `process`, `type`, `f` and, where they are not empty, `index`, `key`, `value`,
  `time_ns`, `error`, `extra`. What JSON lacks is an object of one member: `{"$map": [[key, value], ...]}`, `{"$set": [...]}`.
- edn: maps with `:process :type :f :value`, and `:key :time :index :error`; any other member is kept in `extra`. Porcupine's
  test data and the `history.edn` of Jepsen are of this kind, as single maps or in one vector; where each value is a pair of a key and
  a value (`jepsen.independent`) the keys are taken out.
- etcd log: `INFO  jepsen.util - PROCESS :TYPE :F VALUE`, separated by tabs or spaces; any other line is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from kv_jepsen.edn import EdnError, Keyword, read_forms, written
from kv_jepsen.history import NOTHING, FrozenMap, History, MalformedHistory, Op, OpType, Process, Value

_ETCD_LINE = re.compile(
    r"^INFO\s+jepsen\.util\s+-\s+(?P<process>\d+)\s+:(?P<type>invoke|ok|fail|info)\s+:(?P<f>\w+)\s+"
    r"(?P<value>nil|-?\d+|\[-?\d+\s+-?\d+\]|:[\w-]+)\s*$",
    re.MULTILINE,
)
_MEMBERS = frozenset(["index", "process", "type", "f", "key", "value", "time_ns", "time", "error", "extra"])


GZIP_MAGIC = b"\x1f\x8b"
PROCESS_DIGITS_MAX = 18
"""Of a process that is a number written as text; longer text is a name."""


class UnreadableHistory(ValueError):
    """Text that is no history in any known format; the message names the line and what is wrong."""


def recognized(text: str) -> str:
    """Return the name of the format of `text`: `jsonl`, `edn` or `etcd`.

    Raises:
        UnreadableHistory: it is none of them.
    """
    if _ETCD_LINE.search(text):
        return "etcd"
    content = text.lstrip("\ufeff \t\r\n,")
    if not content:
        raise UnreadableHistory("the file is empty: there is no operation to judge")
    if content.startswith("{") and content[1:].lstrip().startswith('"'):
        return "jsonl"
    if content.startswith(("{", "[", "(", "#", ";")):
        return "edn"
    first = content.splitlines()[0][:60]
    raise UnreadableHistory(
        f"no known format: begins with {first!r}; known are history.jsonl, EDN maps, and logs of `INFO jepsen.util - ...`"
    )


def parse(text: str, form: str | None = None) -> History:
    """Return the history in `text`, of the format `form` or the one it seems to have.

    Raises:
        UnreadableHistory: naming the line and what is wrong with it.
    """
    text = text.removeprefix("\ufeff")
    reader = _READERS[form or recognized(text)]
    lines: list[int] = []
    ops: list[Op] = []
    for line, op in reader(text):
        lines.append(line)
        ops.append(op)
    if not ops:
        raise UnreadableHistory("there is no operation to judge")
    try:
        return History(_with_keys(ops))
    except MalformedHistory as error:
        raise UnreadableHistory(f"line {lines[error.index]}: {error.problem}") from error


def _with_keys(ops: list[Op]) -> list[Op]:
    """Take keys out of values, as Jepsen's `independent` puts them there: a read of key 3 is invoked with [3 nil].

    Only if every client's operation has such a pair and none has a key, and there are reads to tell.
    """
    clients = [op for op in ops if isinstance(op.process, int)]
    asked = [op for op in clients if op.f == "read" and op.type is OpType.INVOKE]
    if not asked or not all(op.key is None and _is_pair(op.value) for op in clients):
        return ops
    if not all(_pair(op.value)[1] is None for op in asked):
        return ops
    return [
        replace(op, key=_pair(op.value)[0], value=_pair(op.value)[1]) if isinstance(op.process, int) else op
        for op in ops
    ]


def _is_pair(value: Value) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _pair(value: Value) -> tuple[Value, Value]:
    assert isinstance(value, tuple), "asked before"
    key, inner = value
    return key, inner


def line_of(text: str, index: int) -> int:
    """Return the line on which the operation with this index stands, in text that `parse` has read."""
    text = text.removeprefix("\ufeff")
    return next(islice(_READERS[recognized(text)](text), index, None))[0]


def decoded(data: bytes) -> str:
    """Return the text of a file.

    Raises:
        UnreadableHistory: it is no UTF-8 text; naming the line, and what to do if it is known.
    """
    if data.startswith(GZIP_MAGIC):
        raise UnreadableHistory("it is compressed by gzip: unpack it first")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableHistory(
            f"line {line}: byte {error.start} is no UTF-8: a history is text, of one of the formats {', '.join(FORMATS)}"
        ) from error


# ------------------------------------------------------------------ etcd logs


def _read_etcd(text: str) -> Iterator[tuple[int, Op]]:
    for number, line in enumerate(text.splitlines(), 1):
        if (match := _ETCD_LINE.match(line)) is not None:
            try:
                yield number, _etcd_op(match)
            except ValueError as error:  # a number of thousands of digits
                raise UnreadableHistory(f"line {number}: {_words(error)}") from error


def _etcd_op(match: re.Match[str]) -> Op:
    raw = match["value"]
    return Op(
        index=-1,
        process=int(match["process"]),
        type=OpType(match["type"]),
        f=match["f"],
        value=_etcd_value(raw),
        error=raw[1:] if raw.startswith(":") else None,
    )


def _etcd_value(raw: str) -> Value:
    if raw.startswith("["):
        return tuple(int(part) for part in raw[1:-1].split())
    return None if raw == "nil" or raw.startswith(":") else int(raw)


# ------------------------------------------------------------------ EDN


def _read_edn(text: str) -> Iterator[tuple[int, Op]]:
    try:
        for line, form in read_forms(text):
            for member in form if isinstance(form, tuple) else (form,):
                yield line, _op_of(_plain_names(line, member), line)
    except EdnError as error:
        raise UnreadableHistory(str(error)) from error


def _plain_names(line: int, form: Value) -> dict[str, Value]:
    if not isinstance(form, Mapping):
        raise UnreadableHistory(f"line {line}: an operation is a map, this is {form!r}"[:200])
    return {str(name): value for name, value in form.items()}


def dump_edn(history: Iterable[Op]) -> str:
    """Return `history` as EDN, one map a line."""
    return "".join(_edn_line(op) + "\n" for op in history)


def _edn_line(op: Op) -> str:
    process = Keyword(op.process) if isinstance(op.process, str) else op.process
    members: list[tuple[str, Value]] = [
        ("process", process),
        ("type", Keyword(op.type)),
        ("f", Keyword(op.f)),
        *([] if op.key is None else [("key", op.key)]),
        ("value", op.value),
        *([("time", op.time_ns)] if op.time_ns else []),
        ("index", op.index),
        *([] if op.error is None else [("error", op.error)]),
        *([("extra", FrozenMap(op.extra))] if op.extra else []),
    ]
    return "{" + ", ".join(f":{name} {written(value)}" for name, value in members) + "}"


# ------------------------------------------------------------------ JSON lines


def _read_jsonl(text: str) -> Iterator[tuple[int, Op]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, _op_of(_json_object(number, line), number)


def _json_object(number: int, line: str) -> dict[str, Value]:
    try:
        loaded = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise UnreadableHistory(f"line {number}: not JSON: {_words(error)}") from error
    if not isinstance(loaded, dict):
        raise UnreadableHistory(f"line {number}: an operation is a JSON object, this is {line.strip()[:60]}")
    try:
        return {name: _from_json(value) for name, value in loaded.items()}
    except RecursionError as error:
        raise UnreadableHistory(f"line {number}: nested too deep") from error
    except (TypeError, ValueError) as error:
        raise UnreadableHistory(f"line {number}: $map takes pairs and $set a list: {error}") from error


def _words(error: Exception) -> str:
    """What is wrong, without the advice that Python gives to programmers."""
    return "a number of thousands of digits" if "integer string conversion" in str(error) else str(error)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of JSON, and equals nothing: write null, or text")


def _from_json(value: Any) -> Value:  # noqa: ANN401 - what JSON gives has no narrower type
    if isinstance(value, list):
        return tuple(map(_from_json, value))
    if not isinstance(value, dict):
        plain: Value = value
        return plain
    if value.keys() == {"$map"}:
        return FrozenMap((_from_json(key), _from_json(item)) for key, item in value["$map"])
    if value.keys() == {"$set"}:
        return frozenset(map(_from_json, value["$set"]))
    return FrozenMap((key, _from_json(item)) for key, item in value.items())


def _to_json(value: Value) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return [_to_json(item) for item in value]
        case frozenset():
            return {"$set": sorted((_to_json(item) for item in value), key=repr)}
        case Mapping():
            return _map_to_json(value)
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be written to a history: {value!r}")


def _map_to_json(value: Mapping[Value, Value]) -> object:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {str(key): _to_json(item) for key, item in value.items()}
    return {"$map": [[_to_json(key), _to_json(item)] for key, item in value.items()]}


def dump_jsonl(history: Iterable[Op]) -> str:
    """Return `history` as JSON lines."""
    return "".join(jsonl_line(op) + "\n" for op in history)


def jsonl_line(op: Op) -> str:
    """Return one operation as a line of `history.jsonl`, without its end, for whoever records as it happens.

    Raises:
        ValueError: a value is of no kind that histories hold.
    """
    record: dict[str, object] = {"index": op.index, "process": op.process, "type": op.type.value, "f": op.f}
    if op.key is not None:
        record["key"] = _to_json(op.key)
    record["value"] = _to_json(op.value)
    if op.time_ns:
        record["time_ns"] = op.time_ns
    if op.error is not None:
        record["error"] = op.error
    if op.extra:
        record["extra"] = {name: _to_json(value) for name, value in op.extra.items()}
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


# ------------------------------------------------------------------ members of an operation


def _op_of(members: Mapping[str, Value], line: int) -> Op:
    for name in ("process", "type", "f"):
        if name not in members:
            raise UnreadableHistory(f"line {line}: the operation has no {name!r}")
    error = members.get("error")
    if not isinstance(members["f"], str):
        raise UnreadableHistory(f"line {line}: f is the name of a function, this is {members['f']!r}")
    process, kind = _process(members["process"], line), _type(members["type"], line)
    if isinstance(process, str) and kind is not OpType.INFO:
        raise UnreadableHistory(
            f"line {line}: the process {process!r} has a name, and such only note things, by info: clients have numbers"
        )
    return Op(
        index=-1,
        process=process,
        type=kind,
        f=str(members["f"]),
        key=members.get("key"),
        value=members.get("value"),
        time_ns=_time_ns(members.get("time_ns", members.get("time")), line),
        error=error if error is None or isinstance(error, str) else written(error),
        extra=_extra(members, line),
    )


def _process(process: Value, line: int) -> Process:
    if isinstance(process, bool) or not isinstance(process, int | str):
        raise UnreadableHistory(f"line {line}: the process {process!r} is neither a number nor a name")
    if isinstance(process, str) and process.isdecimal() and len(process) <= PROCESS_DIGITS_MAX:
        return int(process)  # a number that somebody wrote as text
    return process


def _type(name: Value, line: int) -> OpType:
    try:
        return OpType(str(name))
    except ValueError as error:
        raise UnreadableHistory(
            f"line {line}: the type {name!r} is none of invoke, ok, fail, info"
        ) from error


def _time_ns(time: Value, line: int) -> int:
    if time is None:
        return 0
    if isinstance(time, bool) or not isinstance(time, int):
        raise UnreadableHistory(f"line {line}: the time {time!r} is not a number of nanoseconds")
    return time


def _extra(members: Mapping[str, Value], line: int) -> Mapping[str, Value]:
    given = members.get("extra", NOTHING)
    if not isinstance(given, Mapping):
        raise UnreadableHistory(f"line {line}: extra is a map, this is {given!r}")
    extra = {str(name): value for name, value in given.items()}
    extra.update((name, value) for name, value in members.items() if name not in _MEMBERS)
    return FrozenMap(extra) if extra else NOTHING  # type: ignore[return-value]  # its keys are str


_READERS: Mapping[str, Callable[[str], Iterator[tuple[int, Op]]]] = {
    "etcd": _read_etcd,
    "edn": _read_edn,
    "jsonl": _read_jsonl,
}
FORMATS = tuple(_READERS)
"""Names of the formats that can be read."""
