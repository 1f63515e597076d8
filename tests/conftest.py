"""What every test shares: hypothesis profiles and the replayable seed. Fixtures of one area live beside it.

Replay: a failing property prints `@reproduce_failure(...)`; a failing test that uses `seed` prints the
`KV_TEST_SEED=...` to set. With the same value each test gets the same seed, whatever else runs.
"""

from __future__ import annotations

import hashlib
import os
import secrets

import pytest
from hypothesis import HealthCheck, settings

SEED_VARIABLE = "KV_TEST_SEED"
SEED_BITS = 32

REAL_PROCESSES = {
    "store": (
        "tests/integration/",
        "tests/interop/",
        "tests/faulty_node/",
        "tests/cli/test_cluster_process.py",
    ),
    "harness": (
        "tests/benchmarks/",
        "jepsen-style/tests/cuts/",
        "jepsen-style/tests/targets/",
        "jepsen-style/tests/test_m",
        "jepsen-style/tests/test_p",
        "jepsen-style/tests/test_r",
        "jepsen-style/tests/test_workloads.py",
    ),
}
"""Where tests start real processes, in two halves."""

settings.register_profile(
    "ci",
    deadline=None,  # a shared two-core machine pauses at will
    derandomize=False,
    print_blob=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def derive_seed(base: int, name: str) -> int:
    """Return the seed of the test called `name` under the run's `base` seed (SHA-256, first 4 bytes)."""
    digest = hashlib.sha256(f"{base}:{name}".encode()).digest()
    return int.from_bytes(digest[: SEED_BITS // 8])


def base_seed() -> int:
    """Return the run's seed, as set in KV_TEST_SEED; `pytest_configure` has filled it in."""
    return int(os.environ[SEED_VARIABLE])


def pytest_configure() -> None:
    """Draw the run's seed once, before workers start, so that they inherit it."""
    os.environ.setdefault(SEED_VARIABLE, str(secrets.randbits(SEED_BITS)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `--dist loadgroup` the tests of each half run one after the other: clusters need the machine."""
    for item in items:
        for half, places in REAL_PROCESSES.items():
            if item.nodeid.startswith(places):
                item.add_marker(pytest.mark.xdist_group(half))


def pytest_report_header() -> str:
    """Say the run's seed at the top of the report."""
    return f"{SEED_VARIABLE}={base_seed()}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Give the test its own seed; a failure prints how to get it again."""
    value = derive_seed(base_seed(), request.node.nodeid)
    request.node.add_report_section("setup", "seed", f"{SEED_VARIABLE}={base_seed()} gives seed {value}")
    return value
