"""The errors: complete, the same after both encodings, and never more certain than they may be."""

from __future__ import annotations

import re

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from kv import errors
from kv.errors import (
    DETAILS_KEY,
    ERROR_DOMAIN,
    MESSAGE_CHARS_MAX,
    METADATA_ITEMS_MAX,
    METADATA_VALUE_CHARS_MAX,
    REGISTRY,
    DeadlineExceeded,
    DefiniteError,
    ExitCode,
    GrpcStatus,
    IndefiniteError,
    KVError,
    NotLeader,
    NotOnAllReplicas,
    Overloaded,
    ResultEvicted,
    Unavailable,
    Unimplemented,
    UnknownOutcome,
    from_grpc,
    from_proto,
    to_grpc,
    to_proto,
)
from kv.v1 import kv_pb2

CLASSES = sorted(REGISTRY.values(), key=lambda cls: cls.reason)
DEFINITE = {
    "INVALID_ARGUMENT", "KEY_EMPTY", "KEY_TOO_LONG", "VALUE_TOO_LARGE", "REQUEST_TOO_LARGE", "CROSS_PARTITION",
    "UNIMPLEMENTED", "NOT_FOUND", "CONDITION_FAILED", "WRONG_PARTITION", "NOT_LEADER", "WRONG_CLUSTER", "NO_LEADER",
    "UNAVAILABLE", "OVERLOADED", "DISK_FULL", "REPLICA_STOPPED", "SESSION_EXPIRED", "NOT_AN_INTEGER",
    "INTEGER_OVERFLOW", "OUTCOME_DECIDED", "LEASE_REFUSED", "TOO_STALE", "BEHIND_SESSION", "TOO_FEW_REPLICAS",
    "SNAPSHOT_GONE",
}  # fmt: skip
INDEFINITE = {"UNKNOWN_OUTCOME", "RESULT_EVICTED", "INTERNAL", "DEADLINE_EXCEEDED", "NOT_ON_ALL_REPLICAS"}

any_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.reason)
plain_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)
keys = st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True).filter(lambda key: key != "definite")
metadata_values = st.dictionaries(
    keys, st.text(st.characters(codec="utf-8"), max_size=80), max_size=METADATA_ITEMS_MAX
)


def same(left: KVError, right: KVError) -> bool:
    """Whether two errors say the same."""
    return (
        type(left) is type(right)
        and left.message == right.message
        and left.metadata == right.metadata
        and left.definite == right.definite
        and str(left) == str(right)
    )


def over_grpc(error: KVError) -> KVError:
    """Send the error through a gRPC status and back."""
    code, message, trailing = to_grpc(error)
    return from_grpc(code, message, trailing, sent=True)


def test_registry_is_complete() -> None:
    """Every public error class but the roots is registered under its own reason, and no other is."""
    public = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, KVError)
    } - {KVError, DefiniteError, IndefiniteError}
    assert set(REGISTRY.values()) == public
    assert len(REGISTRY) == len(public)
    assert set(REGISTRY) == DEFINITE | INDEFINITE


@any_class
def test_definite_flag(cls: type[KVError]) -> None:
    """A class is definite exactly if it promises that nothing happened and nothing will."""
    assert cls("x").definite is (cls.reason in DEFINITE)


@any_class
def test_class_is_whole(cls: type[KVError]) -> None:
    """Each class has a stable reason, codes of the three outside worlds, and a hint that is a sentence."""
    assert re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", cls.reason)
    assert cls.grpc_status in set(GrpcStatus) - {GrpcStatus.OK}
    assert 400 <= cls.http_status < 600
    assert cls.exit_code in set(ExitCode)
    assert cls.hint.endswith(".")
    assert str(cls("it failed")) == f"it failed. {cls.hint}"


def test_status_numbers_are_those_of_grpc() -> None:
    """Our status numbers are gRPC's, name by name."""
    assert {status.name: status.value for status in GrpcStatus} == {
        code.name: code.value[0] for code in grpc.StatusCode
    }


@any_class
@given(message=plain_text, metadata=metadata_values)
def test_round_trip_of_both_encodings(cls: type[KVError], message: str, metadata: dict[str, str]) -> None:
    """An error is the same at the other end, whether it travels in a reply or as a gRPC status."""
    error = cls(message, metadata=metadata)
    assert same(error, from_proto(to_proto(error)))
    assert same(error, over_grpc(error))


@pytest.mark.parametrize("definite", [True, False])
def test_deadline_keeps_its_instance_flag(definite: bool) -> None:
    """Whether a passed deadline is definite depends on the instance and survives both encodings."""
    error = DeadlineExceeded("late", definite=definite)
    assert error.definite is definite
    assert from_proto(to_proto(error)).definite is definite
    assert over_grpc(error).definite is definite


@pytest.mark.parametrize("definite", [True, False])
def test_deadline_advises_by_its_definiteness(definite: bool) -> None:
    """Only a write that may have happened is to be looked for first; the advice is said once, also after the wire."""
    error = DeadlineExceeded("late", definite=definite)
    assert ("Read before you write" in str(error)) is not definite
    for arrived in (from_proto(to_proto(error)), over_grpc(error)):
        assert arrived.message == "late"
        assert str(arrived) == str(error) == f"late. {error.advice}"


def test_certainty_is_weakened_but_never_gained() -> None:
    """A flag may make a definite error indefinite, but no flag, not even a peer's, makes an indefinite one definite."""
    assert not Overloaded("x", definite=False).definite
    assert not UnknownOutcome("x", definite=True).definite
    assert not from_proto(kv_pb2.Error(reason="UNKNOWN_OUTCOME", message="x", definite=True)).definite
    assert not from_proto(kv_pb2.Error(reason="OVERLOADED", message="x", definite=False)).definite


def test_which_errors_say_that_it_happened() -> None:
    """Only an evicted result, and a write that is not everywhere, say that the request certainly happened."""
    assert [cls for cls in CLASSES if cls.applied] == [NotOnAllReplicas, ResultEvicted]


@pytest.mark.parametrize(("definite", "base"), [(True, DefiniteError), (False, IndefiniteError)])
def test_unknown_reason_keeps_its_name(definite: bool, base: type[KVError]) -> None:
    """A reason of a newer peer becomes the base class of its flag and passes on unchanged."""
    error = from_proto(kv_pb2.Error(reason="MOON_FULL", message="wait", definite=definite))
    assert isinstance(error, base)
    assert error.reason == "MOON_FULL"
    assert error.definite is definite
    again = over_grpc(error)
    assert isinstance(again, base)
    assert (again.reason, again.message, again.definite) == ("MOON_FULL", "wait", definite)
    assert "MOON_FULL" not in REGISTRY


@pytest.mark.parametrize("code", [code for code in GrpcStatus if code != GrpcStatus.UNIMPLEMENTED])
def test_foreign_failure_after_sending_is_indefinite(code: GrpcStatus) -> None:
    """A failure without our details is indefinite, whatever its code, if the request may have left."""
    error = from_grpc(code, "reset", None, sent=True)
    assert not error.definite
    assert isinstance(error, DeadlineExceeded if code == GrpcStatus.DEADLINE_EXCEEDED else UnknownOutcome)
    assert "reset" in error.message


@pytest.mark.parametrize("code", [code for code in GrpcStatus if code != GrpcStatus.UNIMPLEMENTED])
def test_foreign_failure_before_sending_is_definite(code: GrpcStatus) -> None:
    """A failure without our details is definite if nothing was sent."""
    error = from_grpc(code, None, (), sent=False)
    assert error.definite
    assert isinstance(error, DeadlineExceeded if code == GrpcStatus.DEADLINE_EXCEEDED else Unavailable)


def test_unimplemented_method_is_definite() -> None:
    """The library's answer for an unknown method means that the request was not handled."""
    assert isinstance(from_grpc(12, "Method not found!", (), sent=True), Unimplemented)


def test_unknown_code_is_indefinite() -> None:
    """A status number that does not exist is a failure like any other."""
    assert isinstance(from_grpc(99, "?", (), sent=True), UnknownOutcome)


def test_status_carries_one_error_info() -> None:
    """The status holds one ErrorInfo of our domain with the reason, the metadata and the flag."""
    code, message, trailing = to_grpc(NotLeader("no", metadata={"leader": "n2", "partition": 3}))
    ((key, value),) = trailing
    status = Status.FromString(value)
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (len(status.details), key, status.code, status.message) == (1, DETAILS_KEY, code, message)
    assert (info.domain, info.reason) == (ERROR_DOMAIN, "NOT_LEADER")
    assert dict(info.metadata) == {"leader": "n2", "partition": "3", "definite": "true"}


async def test_over_a_real_call() -> None:
    """An error raised by a server arrives whole at a client through gRPC itself, text beyond ASCII included."""
    error = NotLeader("no: n\u00fcr n2\n", metadata={"leader": "n2", "partition": 3})

    async def fail(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        code, message, trailing = to_grpc(error)
        status = next(status for status in grpc.StatusCode if status.value[0] == code)
        await context.abort(status, message, trailing)

    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(fail)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Errors", {"Fail": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Errors/Fail")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"")
    finally:
        await server.stop(None)
    failed = caught.value
    trailing = [(key, value) for key, value in failed.trailing_metadata()]
    assert same(error, from_grpc(failed.code().value[0], failed.details(), trailing, sent=True))


def test_details_of_others_are_not_ours() -> None:
    """Details of another domain, of another type, or that do not parse count as no details."""
    foreign = Status(code=14)
    foreign.details.add().Pack(RetryInfo())
    foreign.details.add().Pack(ErrorInfo(reason="NOT_LEADER", domain="example.com"))
    for value in (foreign.SerializeToString(), b"\xff\xff\xff", "text"):
        error = from_grpc(14, "x", (("other", "y"), (DETAILS_KEY, value)), sent=True)
        assert isinstance(error, UnknownOutcome), value


def test_limits_of_the_wire() -> None:
    """At their limits message and metadata travel whole; beyond they are cut, and the trailers stay below 8 KiB."""
    whole = "v" * METADATA_VALUE_CHARS_MAX
    kept = {f"k{i:02}": whole for i in range(METADATA_ITEMS_MAX)}
    longest = "m" * (MESSAGE_CHARS_MAX - len(str(NotLeader("x"))) + 1)
    assert same(NotLeader(longest, metadata=kept), over_grpc(NotLeader(longest, metadata=kept)))

    error = NotLeader("m" * 5000, metadata=dict.fromkeys(kept, whole + "!") | {"z": "dropped"})
    got = over_grpc(error)
    assert len(to_grpc(error)[1]) == MESSAGE_CHARS_MAX
    assert got.message.endswith("...")
    assert set(got.metadata) == set(kept)
    assert {len(value) for value in got.metadata.values()} == {METADATA_VALUE_CHARS_MAX}
    assert len(to_grpc(error)[2][0][1]) * 4 // 3 < 8 * 1024


def test_message_defaults_to_the_reason() -> None:
    """An error without a message still says what it is."""
    assert Overloaded().message == "overloaded"
    assert "OVERLOADED" in repr(Overloaded()).upper()
