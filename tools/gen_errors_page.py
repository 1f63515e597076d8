"""Write docs/errors.md from kv/errors.py, so that the page and the code cannot disagree.

python tools/gen_errors_page.py            # write it
python tools/gen_errors_page.py --check    # exit 1 if it is not what would be written
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kv.errors import REGISTRY, ExitCode, GrpcStatus, KVError

PAGE: Final = Path(__file__).parent.parent / "docs" / "errors.md"

HEAD: Final = """\
# Errors

Every failure has one reason, the same on each way in. This page is made from `kv/errors.py` by
`python tools/gen_errors_page.py`; a test holds the two equal.

**Definite** means: it did not happen and will not, so it may be sent again as a new request. An error that is not
definite says only that nobody knows, or, where the table says *applied*, that it certainly happened. *If known*: the
error itself says (`error.definite`, `"definite"` in JSON). Once an attempt of a write may have been applied, no later
refusal is passed on as its answer: the write ends as `UNKNOWN_OUTCOME`, with a token by which to ask for its outcome.

How an error travels:

- **gRPC**: the status code below, and one `google.rpc.ErrorInfo` in `grpc-status-details-bin` with the domain `ringkv`, the reason, and
  metadata (`definite`, `leader`, `token`, ...). In a stream or a batch it is a `kv.v1.Error` with the same fields.
- **HTTP**: the status below and a JSON body with `reason`, `message`, `definite` and the metadata.
- **Python**: the exception below, from `kv.errors`; `KVError` catches all, `error.metadata` has the values that vary.
- **Command line**: the message on the error output, and the exit status below.
"""

GROUPS: Final = (
    ("The request is at fault", ("INVALID_ARGUMENT", "KEY_EMPTY", "KEY_TOO_LONG", "VALUE_TOO_LARGE", "REQUEST_TOO_LARGE",
                                  "CROSS_PARTITION", "UNIMPLEMENTED")),
    ("The answer is no", ("NOT_FOUND", "CONDITION_FAILED", "NOT_AN_INTEGER", "INTEGER_OVERFLOW", "OUTCOME_DECIDED")),
    ("The right request at the wrong place", ("WRONG_PARTITION", "NOT_LEADER", "WRONG_CLUSTER")),
    ("Not now", ("NO_LEADER", "UNAVAILABLE", "OVERLOADED", "DISK_FULL", "REPLICA_STOPPED")),
    ("A promise that cannot be kept now", ("LEASE_REFUSED", "TOO_STALE", "BEHIND_SESSION", "TOO_FEW_REPLICAS", "SNAPSHOT_GONE",
                                            "NOT_ON_ALL_REPLICAS")),
    ("Sessions", ("SESSION_EXPIRED", "RESULT_EVICTED")),
    ("Nobody knows", ("UNKNOWN_OUTCOME", "DEADLINE_EXCEEDED", "INTERNAL")),
)  # fmt: skip
"""The order of the page; every reason is in exactly one group."""


def page() -> str:
    """Return the text of the page."""
    listed = [reason for _, reasons in GROUPS for reason in reasons]
    assert sorted(listed) == sorted(REGISTRY), f"in one of both only: {set(listed) ^ set(REGISTRY)}"
    return "\n".join([HEAD, *_tables(), *_exits()]) + "\n"


def _tables() -> Iterator[str]:
    for title, reasons in GROUPS:
        yield f"## {title}\n"
        yield "| reason | gRPC | HTTP | exception | definite | exit | what it means | what to do |"
        yield "|---|---|---|---|---|---|---|---|"
        for reason in reasons:
            yield _row(REGISTRY[reason])
        yield ""


def _row(error: type[KVError]) -> str:
    status = GrpcStatus(error.grpc_status)
    meaning = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
    cells = (
        f"`{error.reason}`",
        f"{status.name} ({status.value})",
        str(error.http_status),
        f"`{error.__name__}`",
        _definite(error),
        str(int(error.exit_code)),
        meaning,
        _hint(error),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _hint(error: type[KVError]) -> str:
    if not error.hint_if_definite:
        return error.hint
    return f"Definite: {error.hint_if_definite} Else: {error.hint}"


def _definite(error: type[KVError]) -> str:
    if error.applied:
        return "no: applied"
    if error.definite:
        return "yes"
    return "if known" if error.may_be_definite else "no"


def _exits() -> Iterator[str]:
    yield "## Exit status of the command line\n"
    yield "| status | name |"
    yield "|---|---|"
    yield "| 0 | it worked |"
    for code in ExitCode:
        yield f"| {code.value} | {code.name.replace('_', ' ').lower()} |"


def main(arguments: list[str]) -> int:
    """Write the page, or compare it."""
    text = page()
    if arguments == ["--check"]:
        return 0 if PAGE.is_file() and PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
