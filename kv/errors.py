"""Every failure of the system: one class each, the same on both ends of the wire.

Here live the error classes and their two encodings: the message `kv.v1.Error`
(an error inside a reply) and a gRPC status with one `google.rpc.ErrorInfo`
(an error instead of a reply). Nothing here imports grpc, reads a clock or logs.

Two rules hold for each class:

- Definite or indefinite. `definite` means that the operation did not happen and
  will not. If that is not certain the error is indefinite; indefinite is always
  safe. An error may be weakened to indefinite, never strengthened: a peer that
  claims a definite `UNKNOWN_OUTCOME` is not believed.
- The message says what happened and the class hint says what to do next; every
  value that varies is in `metadata`, so that no program parses the text.

Sources: the list of definite and indefinite errors follows Maelstrom's
`doc/protocol.md`; the shape of the status follows google.aip.dev/193.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import ClassVar

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from kv.v1 import kv_pb2

ERROR_DOMAIN = "ringkv"
"""The `domain` of our `ErrorInfo`; one of another domain is not ours and is ignored."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata key in which gRPC carries a serialized `google.rpc.Status`."""

MESSAGE_CHARS_MAX = 512
"""Longer messages are cut on the wire. This limit and the next two keep the trailers below gRPC's 8 KiB."""

METADATA_VALUE_CHARS_MAX = 256
"""Longer metadata values are cut on the wire."""

METADATA_ITEMS_MAX = 8
"""More entries than this are dropped on the wire, the last ones first."""

OUTCOME_KEY = "token"
"""Metadata key of the outcome token."""

_DEFINITE_KEY = "definite"
_CUT_MARK = "..."


class GrpcStatus(IntEnum):
    """The status codes of gRPC by number, so that no inner floor needs to import grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ExitCode(IntEnum):
    """What the command line returns to the shell."""

    GENERAL = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNKNOWN_OUTCOME = 5
    UNAVAILABLE = 6
    DEADLINE = 7


class KVError(Exception):
    """The root of all errors that this system raises on purpose.

    Attributes of the class: `reason` (stable, UPPER_SNAKE), `grpc_status`,
    `http_status`, `exit_code`, `hint` (what to do next), `hint_if_definite` (what to do
    if it is definite, where that is something else), `applied` (True: it certainly
    happened). Attributes of the instance: `message`, `metadata`, `definite`, `advice`.

    `str(error)` is the message followed by the advice: the hint for its definiteness. `metadata` values are turned into
    text. `definite` may weaken a class to indefinite; it strengthens only those classes
    that set `may_be_definite`.
    """

    reason: ClassVar[str] = "UNKNOWN"
    grpc_status: ClassVar[GrpcStatus] = GrpcStatus.UNKNOWN
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[ExitCode] = ExitCode.GENERAL
    hint: ClassVar[str] = "Look at the log of the node that answered."
    hint_if_definite: ClassVar[str] = ""
    applied: ClassVar[bool] = False
    may_be_definite: ClassVar[bool] = False
    definite: bool = False

    message: str
    metadata: dict[str, str]

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, object] | None = None,
        definite: bool | None = None,
    ) -> None:
        self.message = message or self.reason.replace("_", " ").lower()
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        if definite is not None:
            self.definite = definite and self.may_be_definite
        super().__init__(self.message)

    @property
    def token(self) -> str | None:
        """By what to ask for the outcome of the write (see `kv.outcome`), where the outcome is unknown and can be asked for."""
        return self.metadata.get(OUTCOME_KEY)

    @property
    def advice(self) -> str:
        """What to do next: what did not happen needs no look at what is there."""
        return (self.definite and self.hint_if_definite) or self.hint

    def __str__(self) -> str:
        return self.message + _hint_suffix(self.advice)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.message!r}, metadata={self.metadata!r}, definite={self.definite})"
        )


class DefiniteError(KVError):
    """It did not happen and will not. Also stands for a definite reason that this version does not know."""

    may_be_definite = True
    definite = True


class IndefiniteError(KVError):
    """It may have happened or may yet. Also stands for an indefinite reason that this version does not know."""

    exit_code = ExitCode.UNKNOWN_OUTCOME
    hint = "Read before you write again, or retry with the same session and sequence."


# --- the request itself is at fault ---------------------------------------------------------------


class InvalidArgument(DefiniteError):
    """The request can never succeed as it is."""

    reason = "INVALID_ARGUMENT"
    grpc_status = GrpcStatus.INVALID_ARGUMENT
    http_status = 400
    exit_code = ExitCode.USAGE
    hint = "Correct the request; repeating it unchanged fails again."


class KeyEmpty(InvalidArgument):
    """A key has at least one byte."""

    reason = "KEY_EMPTY"
    hint = "Give a key of at least one byte."


class KeyTooLong(InvalidArgument):
    """The key is longer than `kv.ids.KEY_BYTES_MAX`."""

    reason = "KEY_TOO_LONG"
    hint = "Shorten the key, for example to a hash of it, and keep the long name in the value."


class ValueTooLarge(InvalidArgument):
    """The value is larger than `kv.ids.VALUE_BYTES_MAX`."""

    reason = "VALUE_TOO_LARGE"
    http_status = 413
    hint = "Split the value over several keys with the same hash tag."


class RequestTooLarge(InvalidArgument):
    """The request is larger than `kv.ids.REQUEST_BYTES_MAX`."""

    reason = "REQUEST_TOO_LARGE"
    http_status = 413
    hint = "Send fewer operations in each request."


class CrossPartition(InvalidArgument):
    """An atomic request names keys of more than one partition."""

    reason = "CROSS_PARTITION"
    hint = "Give the keys one common hash tag, as in {user1}:name and {user1}:mail, or drop atomicity."


class Unimplemented(DefiniteError):
    """The node does not know this method or option."""

    reason = "UNIMPLEMENTED"
    grpc_status = GrpcStatus.UNIMPLEMENTED
    http_status = 501
    hint = "Upgrade the node, or do without the option."


# --- the answer is no ------------------------------------------------------------------------------


class NotFound(DefiniteError):
    """There is no such key. Raised by the command line and HTTP; a get over gRPC answers `found = false`."""

    reason = "NOT_FOUND"
    grpc_status = GrpcStatus.NOT_FOUND
    http_status = 404
    exit_code = ExitCode.NOT_FOUND
    hint = "Check the key's spelling; keys are compared byte by byte."


class Conflict(DefiniteError):
    """The condition of a conditional write did not hold; nothing was written.

    ABORTED, because grpc.io names it for a failed test-and-set: the caller restarts its read-modify-write.
    """

    reason = "CONDITION_FAILED"
    grpc_status = GrpcStatus.ABORTED
    http_status = 409
    exit_code = ExitCode.CONFLICT
    hint = "Read the key again and decide anew."


class NotAnInteger(DefiniteError):
    """An increment found a value that is not a signed 64-bit integer in decimal text; nothing was written."""

    reason = "NOT_AN_INTEGER"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 409
    exit_code = ExitCode.CONFLICT
    hint = "Increment only keys that hold decimal text, or put one there first."


class IntegerOverflow(DefiniteError):
    """The sum of an increment does not fit into a signed 64-bit integer; nothing was written."""

    reason = "INTEGER_OVERFLOW"
    grpc_status = GrpcStatus.OUT_OF_RANGE
    http_status = 409
    exit_code = ExitCode.CONFLICT
    hint = "Use a smaller delta, or put a new number into the key."


class OutcomeDecided(DefiniteError):
    """A late copy of a write that an outcome query has declared not applied; it was refused.

    Metadata: `session`, `sequence`.
    """

    reason = "OUTCOME_DECIDED"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 409
    exit_code = ExitCode.CONFLICT
    hint = "It was not applied and never will be under this request id: send it as a new write."


# --- the right request at the wrong place ----------------------------------------------------------


class WrongPartition(DefiniteError):
    """The sender's cluster map is stale, or newer than ours. Metadata: `map_epoch`, ours."""

    reason = "WRONG_PARTITION"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 421
    exit_code = ExitCode.UNAVAILABLE
    hint = "Fetch the cluster map and retry."


class NotLeader(DefiniteError):
    """This replica does not lead the partition; nothing was proposed. Metadata: `leader` (may be empty), `partition`."""

    reason = "NOT_LEADER"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 421
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry at the node that the metadata names as leader."


class WrongCluster(DefiniteError):
    """The peer belongs to another cluster."""

    reason = "WRONG_CLUSTER"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 421
    hint = "Check the addresses and the cluster name of both sides."


# --- not now ---------------------------------------------------------------------------------------


class NoLeader(DefiniteError):
    """The partition has no leader, so the request was not accepted. Metadata: `partition`."""

    reason = "NO_LEADER"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry after an election timeout; if it stays so, see which replicas are down."


class Unavailable(DefiniteError):
    """The node could not be reached or is stopping, and the request was not sent."""

    reason = "UNAVAILABLE"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry, at another node if there is one."


class Overloaded(DefiniteError):
    """A queue is at its limit, or the wait in it too long for the time that the request has; it was refused at the door."""

    reason = "OVERLOADED"
    grpc_status = GrpcStatus.RESOURCE_EXHAUSTED
    http_status = 429
    exit_code = ExitCode.UNAVAILABLE
    hint = "Slow down and retry after a pause."


class DiskFull(DefiniteError):
    """The leader's disk has no room for writes, deletes among them; reads still work."""

    reason = "DISK_FULL"
    grpc_status = GrpcStatus.RESOURCE_EXHAUSTED
    http_status = 507
    exit_code = ExitCode.UNAVAILABLE
    hint = "Free space on the node's disk; the node goes on by itself."


class ReplicaStopped(DefiniteError):
    """The replica stopped itself after a failed invariant and takes no requests. Metadata: `partition`, `cause`."""

    reason = "REPLICA_STOPPED"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry at another node; have the operator read the replica's log and rejoin it."


# --- a promise that cannot be kept now -------------------------------------------------------------


class LeaseRefused(DefiniteError):
    """LEASE reads are switched off, or the lease is too long for the clocks that the configuration allows."""

    reason = "LEASE_REFUSED"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 412
    hint = "Read LINEARIZABLE, or set lease_ms below election_min_ms by more than clock_drift_max allows."


class TooStale(DefiniteError):
    """No replica that was asked can answer within the age that a BOUNDED read allows. Metadata: `max_age_ms`."""

    reason = "TOO_STALE"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry, allow a greater age, or read STALE and look at the age in the evidence."


class BehindSession(DefiniteError):
    """The replica has not reached what the session has seen. Metadata: `index`, wanted; `applied_index`, had."""

    reason = "BEHIND_SESSION"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry, at another replica if there is one; the leader is never behind for long."


class TooFewReplicas(DefiniteError):
    """Fewer replicas answered than a QUORUM or ALL read asks for. Metadata: `answered`, `wanted`."""

    reason = "TOO_FEW_REPLICAS"
    grpc_status = GrpcStatus.UNAVAILABLE
    http_status = 503
    exit_code = ExitCode.UNAVAILABLE
    hint = "Retry, or ask for fewer replicas."


class SnapshotGone(DefiniteError):
    """The state that a scan reads at one index is no longer kept. Metadata: `cause`."""

    reason = "SNAPSHOT_GONE"
    grpc_status = GrpcStatus.ABORTED
    http_status = 410
    exit_code = ExitCode.UNAVAILABLE
    hint = "Start the scan again, read its pages faster, or scan a smaller range."


class NotOnAllReplicas(KVError):
    """A write at level ALL was applied, and is on a majority's disks, but not proved on every replica in time.

    The write stands, once. Metadata: `revision`, `missing` (node ids, comma separated).
    """

    reason = "NOT_ON_ALL_REPLICAS"
    grpc_status = GrpcStatus.DEADLINE_EXCEEDED
    http_status = 504
    exit_code = ExitCode.DEADLINE
    applied = True
    hint = "Do not send it again: it was applied. See which replica is down, or write at level QUORUM."


# --- sessions --------------------------------------------------------------------------------------


class SessionExpired(DefiniteError):
    """The session is unknown or expired, so this retry was refused rather than applied twice.

    Definite for this attempt only: an earlier attempt of the same sequence may have been applied.
    """

    reason = "SESSION_EXPIRED"
    grpc_status = GrpcStatus.FAILED_PRECONDITION
    http_status = 410
    hint = (
        "Open a new session; if an earlier attempt had no answer, read first to see whether it was applied."
    )


class ResultEvicted(IndefiniteError):
    """The request was applied earlier, once, but its result is no longer kept.

    Indefinite in the sense of the root (it is not true that it did not happen), and `applied`.
    """

    reason = "RESULT_EVICTED"
    grpc_status = GrpcStatus.OUT_OF_RANGE
    http_status = 410
    applied = True
    hint = "Do not send it again: it was applied. Read the key for its present state."


# --- nobody knows ----------------------------------------------------------------------------------


class UnknownOutcome(IndefiniteError):
    """The request was sent or proposed, and its end was not seen."""

    reason = "UNKNOWN_OUTCOME"
    grpc_status = GrpcStatus.UNKNOWN
    http_status = 500
    hint = "Ask for the outcome with the token in the metadata, or read before you write again."


class DeadlineExceeded(KVError):
    """Time ran out. Definite only if the raiser knows that nothing was sent or proposed (`definite=True`)."""

    reason = "DEADLINE_EXCEEDED"
    grpc_status = GrpcStatus.DEADLINE_EXCEEDED
    http_status = 504
    exit_code = ExitCode.DEADLINE
    may_be_definite = True
    hint = "Read before you write again, or retry with the same session and a longer deadline."
    hint_if_definite = "It did not happen: send it again, with a longer deadline."


class Internal(IndefiniteError):
    """A defect of the server; what became of the request is not known."""

    reason = "INTERNAL"
    grpc_status = GrpcStatus.INTERNAL
    http_status = 500
    exit_code = ExitCode.GENERAL
    hint = "Read the node's log and report the defect; read before you write again."


def _leaves(root: type[KVError]) -> Iterable[type[KVError]]:
    for cls in root.__subclasses__():
        if cls not in (DefiniteError, IndefiniteError):
            yield cls
        yield from _leaves(cls)


REGISTRY: Mapping[str, type[KVError]] = {cls.reason: cls for cls in _leaves(KVError)}
"""Every concrete class by its reason."""


# --- encodings -------------------------------------------------------------------------------------


def to_proto(error: KVError) -> kv_pb2.Error:
    """Return `error` as the message that travels inside a reply."""
    details = [kv_pb2.ErrorDetail(key=key, value=value) for key, value in _bounded(error.metadata).items()]
    return kv_pb2.Error(
        reason=error.reason,
        message=_cut(str(error), MESSAGE_CHARS_MAX),
        definite=error.definite,
        details=details,
    )


def from_proto(proto: kv_pb2.Error) -> KVError:
    """Return the exception that `proto` stands for; an unknown reason keeps its name and its definite flag."""
    metadata = {detail.key: detail.value for detail in proto.details}
    return _decode(proto.reason, proto.message, metadata, proto.definite)


def to_grpc(error: KVError) -> tuple[int, str, tuple[tuple[str, bytes], ...]]:
    """Return (status code, message, trailing metadata) for a call that ends with `error`."""
    info = ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=_bounded(error.metadata))
    info.metadata[_DEFINITE_KEY] = "true" if error.definite else "false"
    status = Status(code=int(error.grpc_status), message=_cut(str(error), MESSAGE_CHARS_MAX))
    status.details.add().Pack(info)
    return int(error.grpc_status), status.message, ((DETAILS_KEY, status.SerializeToString()),)


def from_grpc(
    code: int,
    details: str | None,
    trailing_metadata: Iterable[tuple[str, str | bytes]] | None,
    *,
    sent: bool,
) -> KVError:
    """Return the exception for a call that ended with the status `code`.

    `sent` says whether any byte of the request may have left this process. It decides only
    when the status carries no `ErrorInfo` of ours, for example after a connection reset: then
    whatever was sent is indefinite, whatever the code.
    """
    found = _error_info(trailing_metadata or ())
    if found is None:
        return _from_foreign(code, details or "", sent=sent)
    message, info = found
    metadata = {key: value for key, value in info.metadata.items() if key != _DEFINITE_KEY}
    return _decode(info.reason, message, metadata, info.metadata.get(_DEFINITE_KEY) == "true")


def _error_info(trailing: Iterable[tuple[str, str | bytes]]) -> tuple[str, ErrorInfo] | None:
    """Return the message and our `ErrorInfo` from the trailing metadata, or None if there is none that parses."""
    for key, value in trailing:
        if key != DETAILS_KEY or not isinstance(value, bytes):
            continue
        status, info = Status(), ErrorInfo()
        try:
            status.ParseFromString(value)
            for detail in status.details:
                if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                    return status.message, info
        except DecodeError:
            return None  # garbage from a proxy: the caller falls back to the bare code, and to `sent`
    return None


def _from_foreign(code: int, details: str, *, sent: bool) -> KVError:
    name = GrpcStatus(code).name if code in set(GrpcStatus) else str(code)
    message = f"gRPC call failed with {name}: {details or 'no details'}"
    metadata = {"grpc_status": name}
    if code == GrpcStatus.UNIMPLEMENTED:  # the library's own answer for a method it does not know
        return Unimplemented(message, metadata=metadata)
    if code == GrpcStatus.DEADLINE_EXCEEDED:
        return DeadlineExceeded(message, metadata=metadata, definite=not sent)
    return UnknownOutcome(message, metadata=metadata) if sent else Unavailable(message, metadata=metadata)


def _decode(reason: str, message: str, metadata: Mapping[str, str], definite: bool) -> KVError:
    cls = REGISTRY.get(reason)
    if cls is not None:
        return cls(_without_hint(message, cls), metadata=metadata, definite=definite)
    error = _unknown(reason, DefiniteError if definite else IndefiniteError)
    return error(_without_hint(message, error), metadata=metadata)


def _without_hint(message: str, cls: type[KVError]) -> str:
    """Return the message without the hint of its class, whichever the sender put behind it."""
    for hint in (cls.hint, cls.hint_if_definite):
        if hint:
            message = message.removesuffix(_hint_suffix(hint))
    return message


def _unknown(reason: str, base: type[KVError]) -> type[KVError]:
    """Return a stand-in class for a reason of a newer peer, so that a router passes it on under its own name."""
    return type(base.__name__, (base,), {"reason": reason or base.reason, "__doc__": base.__doc__})


def _hint_suffix(hint: str) -> str:
    return f". {hint}"


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else text[: chars_max - len(_CUT_MARK)] + _CUT_MARK


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    items = list(metadata.items())[:METADATA_ITEMS_MAX]
    return {key: _cut(value, METADATA_VALUE_CHARS_MAX) for key, value in items}
