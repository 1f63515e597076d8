"""What every test of the harness shares: properties have no deadline, since a shared machine pauses at will."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "kv_jepsen",
    settings(),  # whatever profile is in force, such as that of the store's own tests
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("kv_jepsen")
