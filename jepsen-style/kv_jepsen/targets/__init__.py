"""Systems under test: `api` says what each offers, one file each does it. `by_name` finds them."""

from kv_jepsen.targets.api import Answer, Client, Places, Refused, Target, Unknown
from kv_jepsen.targets.names import TARGETS, by_name, class_of
from kv_jepsen.targets.process_target import ProcessTarget
from kv_jepsen.unsupported import Unsupported

__all__ = [
    "TARGETS",
    "Answer",
    "Client",
    "Places",
    "ProcessTarget",
    "Refused",
    "Target",
    "Unknown",
    "Unsupported",
    "by_name",
    "class_of",
]
