"""The JSON and query forms of requests. Pure: from fields to `kv.v1` messages; replies are in `kv.gateway.replies`.

Keys and values are text in `key` and `value`, or any bytes in `key_base64` and `value_base64`. Whatever is
unknown, given twice or of a wrong type is refused with `InvalidArgument`: a misspelled condition must not become
an unconditional write.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from kv.client.levels import Level, Preference, read_options, write_level_of
from kv.client.session_token import Seen
from kv.errors import InvalidArgument
from kv.ids import check_key, check_value
from kv.v1 import kv_pb2

REVISION_MAX: Final = (1 << 64) - 1
DELTA_MIN: Final = -(1 << 63)
DELTA_MAX: Final = (1 << 63) - 1
ALL_TIMEOUT_MS_MAX: Final = 60_000
"""A longer wait for all replicas is a mistake: the request itself ends earlier."""

_KEY: Final = frozenset({"key", "key_base64"})
_VALUE: Final = frozenset({"value", "value_base64"})
_PRESENCE: Final = frozenset({"if_present", "if_revision", "if_value", "if_value_base64"})
_CONDITION: Final = _PRESENCE | {"if_absent"}
_LEVEL: Final = frozenset({"write", "all_timeout_ms"})

_PUT: Final = _KEY | _VALUE | _CONDITION | _LEVEL | {"return_previous"}
_GET: Final = _KEY | {"level", "prefer"}
_DELETE: Final = _KEY | _PRESENCE | _LEVEL | {"return_previous"}
_INCREMENT: Final = _KEY | _CONDITION | _LEVEL | {"delta"}
_APPEND: Final = _KEY | _VALUE | _CONDITION | _LEVEL

_NUMBERS: Final = {"if_revision": REVISION_MAX, "all_timeout_ms": ALL_TIMEOUT_MS_MAX}
"""Fields that hold a number from 0 to this."""
_FLAGS: Final = frozenset({"if_absent", "if_present", "return_previous"})

Fields = Mapping[str, Any]


def read_json(body: bytes) -> Fields:
    """Return the object that `body` holds. Raises `InvalidArgument`."""
    try:
        found = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, a number of 5000 digits
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgument('the body is not a JSON object: send {"key": ..., ...}')
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidArgument("a field is given twice")
    return fields


def read_query(pairs: list[tuple[str, str]]) -> Fields:
    """Return the parameters of a URL, with the types that they have in JSON. Raises `InvalidArgument`."""
    fields: dict[str, Any] = _once(list(pairs))
    for name in fields.keys() & _NUMBERS.keys():
        text = fields[name]
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(REVISION_MAX))):
            raise InvalidArgument(f"{name} is not a number", metadata={"field": name})
        fields[name] = int(text)
    for name in fields.keys() & _FLAGS:
        if fields[name] not in ("true", "false"):
            raise InvalidArgument(f"{name} is not true or false", metadata={"field": name})
        fields[name] = fields[name] == "true"
    return fields


def put_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST /put. Raises `InvalidArgument`."""
    _known(fields, _PUT)
    put = kv_pb2.PutOperation(
        key=_key(fields),
        value=_value(fields),
        condition=_condition(fields),
        return_previous=_flag(fields, "return_previous"),
    )
    return _write(fields, kv_pb2.Operation(put=put))


def delete_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST or DELETE /delete. Raises `InvalidArgument`."""
    _known(fields, _DELETE)
    delete = kv_pb2.DeleteOperation(
        key=_key(fields),
        condition=_condition(fields),
        return_previous=_flag(fields, "return_previous"),
    )
    return _write(fields, kv_pb2.Operation(delete=delete))


def increment_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST /increment; without a delta it counts by 1. Raises `InvalidArgument`."""
    _known(fields, _INCREMENT)
    delta = fields.get("delta", 1)
    if isinstance(delta, bool) or not isinstance(delta, int) or not DELTA_MIN <= delta <= DELTA_MAX:
        raise InvalidArgument("delta is not a whole number of 64 bits", metadata={"field": "delta"})
    increment = kv_pb2.IncrementOperation(key=_key(fields), delta=delta, condition=_condition(fields))
    return _write(fields, kv_pb2.Operation(increment=increment))


def append_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST /append. Raises `InvalidArgument`."""
    _known(fields, _APPEND)
    append = kv_pb2.AppendOperation(key=_key(fields), value=_value(fields), condition=_condition(fields))
    return _write(fields, kv_pb2.Operation(append=append))


def get_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for GET /get. Raises `InvalidArgument`."""
    _known(fields, _GET)
    level = Level.parse(_text(fields, "level", "linearizable"))
    preference = Preference.parse(_text(fields, "prefer", "")) if "prefer" in fields else None
    options = read_options(level, preference)
    return kv_pb2.BatchRequest(
        operations=[kv_pb2.Operation(get=kv_pb2.GetOperation(key=_key(fields)))],
        level=kv_pb2.ReadLevel.ValueType(level.kind),
        read=options if options.ByteSize() else None,
    )


def refuse_fields(fields: Fields) -> None:
    """Raise `InvalidArgument` if there is any: the path says all."""
    if fields:
        raise InvalidArgument(f"unknown field {min(fields)!r}: this path takes none")


def bind_session(batch: kv_pb2.BatchRequest, seen: Seen) -> None:
    """Have a SESSION read wait for what the caller has seen; others do not ask for it."""
    if batch.level == kv_pb2.READ_LEVEL_SESSION:
        batch.read.after.extend(
            kv_pb2.PartitionIndex(partition=partition, index=index)
            for partition, index in sorted(seen.indexes.items())
        )


def _write(fields: Fields, operation: kv_pb2.Operation) -> kv_pb2.BatchRequest:
    batch = kv_pb2.BatchRequest(operations=[operation])
    if "write" in fields:
        level = write_level_of(_text(fields, "write", ""))
        batch.write_level = kv_pb2.WriteLevel.ValueType(level)
    batch.all_timeout_ms = _number(fields, "all_timeout_ms") or 0
    return batch


def _known(fields: Fields, names: frozenset[str]) -> None:
    unknown = sorted(fields.keys() - names)
    if unknown:
        raise InvalidArgument(
            f"unknown field {unknown[0]!r}: this path takes {', '.join(sorted(names))}",
            metadata={"field": unknown[0]},
        )


def _key(fields: Fields) -> bytes:
    key = _bytes(fields, "key")
    check_key(key)
    return key


def _value(fields: Fields) -> bytes:
    value = _bytes(fields, "value")
    check_value(value)
    return value


def _bytes(fields: Fields, name: str) -> bytes:
    """Return the bytes of `name` or `name_base64`, of which exactly one must be given."""
    encoded = f"{name}_base64"
    if (name in fields) == (encoded in fields):
        raise InvalidArgument(f"give {name} or {encoded}, one of them", metadata={"field": name})
    field = name if name in fields else encoded
    text = _text(fields, field, "")
    try:
        return (
            text.encode("utf-8") if field == name else base64.b64decode(text.encode("ascii"), validate=True)
        )
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can write and UTF-8 cannot
        raise InvalidArgument(f"{field} is not valid text: {error}", metadata={"field": field}) from error
    except binascii.Error as error:
        raise InvalidArgument(f"{field} is not base64: {error}", metadata={"field": field}) from error


def _text(fields: Fields, name: str, default: str) -> str:
    text = fields.get(name, default)
    if not isinstance(text, str):
        raise InvalidArgument(f"{name} is not a string", metadata={"field": name})
    return text


def _flag(fields: Fields, name: str) -> bool:
    flag = fields.get(name, False)
    if not isinstance(flag, bool):
        raise InvalidArgument(f"{name} is not true or false", metadata={"field": name})
    return flag


def _number(fields: Fields, name: str) -> int | None:
    number = fields.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _NUMBERS[name]:
        raise InvalidArgument(f"{name} is not a number from 0 to {_NUMBERS[name]}", metadata={"field": name})
    return number


def _condition(fields: Fields) -> kv_pb2.Condition | None:
    """Return the condition, of which at most one may be given; a flag that is false is none."""
    found: dict[str, kv_pb2.Condition] = {}
    for name in ("absent", "present"):
        if _flag(fields, f"if_{name}"):
            found[f"if_{name}"] = kv_pb2.Condition(absent=True) if name == "absent" else _PRESENT
    revision = _number(fields, "if_revision")
    if revision is not None:
        found["if_revision"] = kv_pb2.Condition(revision=revision)
    if "if_value" in fields or "if_value_base64" in fields:
        found["if_value"] = kv_pb2.Condition(value=_bytes(fields, "if_value"))
    if len(found) > 1:
        first, second, *_ = found
        raise InvalidArgument(f"{first} and {second} cannot be combined", metadata={"field": first})
    return next(iter(found.values()), None)


_PRESENT: Final = kv_pb2.Condition(present=True)
