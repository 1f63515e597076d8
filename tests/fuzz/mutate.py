"""Mutations of inputs: of plain bytes, and of the tree of fields that a protobuf message is on the wire.

What lives here: pure functions of (input, another input, random numbers). What must not: any schema. A
length-delimited field that parses as a message is taken for one, so nested messages are mutated as trees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

DEPTH_MAX = 12
"""Deeper fields are left as bytes."""

CHUNK_BYTES_MAX = 32
"""Bytes that one mutation inserts, removes or copies."""

VARINT_BYTES_MAX = 10
BYTES_SHARE = 0.15
"""Share of mutations of a message that ignore its structure."""

INTERESTING = (
    0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65_535, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
    (1 << 48) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1,
)  # fmt: skip
"""Numbers at which decoders break."""


def mutate_bytes(data: bytes, other: bytes, rng: Random) -> bytes:
    """One change that knows nothing of what the bytes mean."""
    out = bytearray(data)
    at = rng.randrange(len(out) + 1)
    match rng.randrange(8):
        case 0 if at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        case 2:
            out[at:at] = rng.randbytes(rng.randint(1, CHUNK_BYTES_MAX))
        case 3:
            del out[at : at + rng.randint(1, CHUNK_BYTES_MAX)]
        case 4:
            del out[at:]
        case 5 if other:
            start = rng.randrange(len(other))
            chunk = other[start : start + rng.randint(1, CHUNK_BYTES_MAX)]
            out[at : at + rng.choice((0, len(chunk)))] = chunk
        case 6 if other:
            out[at:] = other[rng.randrange(len(other)) :]
        case 7:
            size = rng.choice((1, 2, 4, 8))
            out[at : at + size] = (rng.choice(INTERESTING) % (1 << 8 * size)).to_bytes(size, "little")
        case _:
            out[at:at] = b"\0"
    return bytes(out)


def mutate_text(data: bytes, other: bytes, rng: Random) -> bytes:
    """Like `mutate_bytes`, and now and then a number or a token of the text is replaced."""
    if rng.random() < 0.7:
        return mutate_bytes(data, other, rng)
    tokens = (b'"', b"{", b"}", b"[", b"]", b",", b":", b"=", b"&", b"%", b"\\ud800", b"null", b"true", b"1e999",
              b"-1", b"9" * 30, b"\xff", b"\n", b"'", b"#", b"nan", b"inf", b"/", b"?", b"..", b"")  # fmt: skip
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(tokens) + data[at + rng.randrange(4) :]


@dataclass(slots=True)
class Field:
    """One field on the wire; `value` is a number, bytes, or the fields of a nested message."""

    number: int
    kind: int
    value: int | bytes | list[Field]


def parse(data: bytes, depth: int = 0) -> list[Field] | None:
    """The fields of a message; None if the bytes are none (groups count as none)."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if at < 0 or not 0 < number < 1 << 29:
            return None
        value: int | bytes | list[Field]
        match kind:
            case 0:
                value, at = _varint(data, at)
                if at < 0:
                    return None
            case 1 | 5:
                size = 8 if kind == 1 else 4
                value, at = data[at : at + size], at + size
            case 2:
                size, at = _varint(data, at)
                if at < 0 or at + size > len(data):
                    return None
                inner = data[at : at + size]
                nested = parse(inner, depth + 1) if inner and depth < DEPTH_MAX else None
                value, at = (inner if nested is None else nested), at + size
            case _:
                return None
        fields.append(Field(number, kind, value))
    return fields if at == len(data) else None


def serialize(fields: list[Field]) -> bytes:
    """Inverse of `parse`."""
    out = bytearray()
    for field in fields:
        out += _encode(field.number << 3 | field.kind)
        if isinstance(field.value, int):
            out += _encode(field.value)
        else:
            inner = field.value if isinstance(field.value, bytes) else serialize(field.value)
            out += (_encode(len(inner)) if field.kind == 2 else b"") + inner
    return bytes(out)


def mutate_message(data: bytes, other: bytes, rng: Random) -> bytes:
    """One change of a serialized protobuf message that mostly leaves it one."""
    fields = parse(data)
    if fields is None or rng.random() < BYTES_SHARE:
        return mutate_bytes(data, other, rng)
    places = _places(fields)
    lent = _places(parse(other) or [])
    if not places:
        return serialize([owner[at] for owner, at in lent[:1]])
    owner, at = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del owner[at]
        case 1:
            owner.insert(rng.randrange(len(owner) + 1), owner[at])
        case 2:
            to = rng.randrange(len(owner))
            owner[at], owner[to] = owner[to], owner[at]
        case 3 if lent:
            _graft(owner, at, lent, rng)
        case 4:
            owner[at] = Field(rng.randrange(1, 17), owner[at].kind, owner[at].value)
        case _:
            owner[at] = _changed(owner[at], rng)
    return serialize(fields)


def without_one_field(data: bytes) -> Iterator[bytes]:
    """The message with one of its fields left out, each in turn; nothing if it is no message."""
    for number in range(len(_places(parse(data) or []))):
        fields = parse(data) or []
        owner, at = _places(fields)[number]
        del owner[at]
        yield serialize(fields)


def _graft(owner: list[Field], at: int, lent: list[tuple[list[Field], int]], rng: Random) -> None:
    """Put a field of another input beside or in the place of one, of the same number if there is one."""
    same = [(source, i) for source, i in lent if source[i].number == owner[at].number]
    source, i = rng.choice(same or lent)
    if rng.random() < 0.5:
        owner[at] = source[i]
    else:
        owner.insert(at, source[i])


def _changed(field: Field, rng: Random) -> Field:
    value = field.value
    if isinstance(value, int):
        near = (value + rng.randint(-2, 2)) % (1 << 64)
        return Field(field.number, 0, rng.choice((near, near, rng.choice(INTERESTING), rng.getrandbits(64))))
    if isinstance(value, list):
        return Field(field.number, 2, rng.choice((b"", mutate_bytes(serialize(value), b"", rng))))
    if field.kind != 2:
        return Field(field.number, field.kind, rng.randbytes(len(value)))
    big = bytes(value) * rng.choice((2, 16, 600))
    return Field(field.number, 2, rng.choice((b"", b"\0", mutate_bytes(value, value, rng), big[:20_000])))


def _places(fields: list[Field]) -> list[tuple[list[Field], int]]:
    """Every field with the list that holds it, nested ones included."""
    found = [(fields, at) for at in range(len(fields))]
    for field in fields:
        if isinstance(field.value, list):
            found += _places(field.value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, offset behind it); the offset is -1 if there is none."""
    value = 0
    for shift in range(VARINT_BYTES_MAX):
        if at + shift >= len(data):
            break
        byte = data[at + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value % (1 << 64), at + shift + 1
    return 0, -1


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
