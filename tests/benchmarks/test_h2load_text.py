"""What h2load prints, read from what it printed."""

from __future__ import annotations

import pytest

from benchmarks.h2load_text import H2Load, read_h2load, together

PRINTED = """
finished in 2.00s, 3079.33 req/s, 186.48KB/s
requests: 4619 total, 4619 started, 4619 done, 4600 succeeded, 10 failed, 6 errored, 3 timeout
status codes: 4619 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 279.72KB (286437) total, 15.07KB (15429) headers (space savings 96.28%), 24.99KB (25590) data
                     min         max         mean         sd        +/- sd
time for request:      695us     46.67ms      5.19ms      4.15ms    94.74%
time for connect:        0us         0us         0us         0us     0.00%
time to 1st byte:        0us         0us         0us         0us     0.00%
req/s           :    3078.51     3078.51     3078.51        0.00   100.00%
"""


def test_rate_counts_and_latencies_are_found() -> None:
    """Rate, what succeeded and what did not, mean and maximum in milliseconds."""
    assert read_h2load(PRINTED) == H2Load(3079.33, 4600, 19, 5.19, 46.67, 25590)


def test_latencies_may_have_any_unit() -> None:
    """Microseconds and seconds are milliseconds, too."""
    other = PRINTED.replace("46.67ms      5.19ms", "1.50s     900us")
    found = read_h2load(other)
    assert found.max_ms == 1500.0
    assert found.mean_ms == pytest.approx(0.9)


def test_no_result_is_an_error_with_the_text() -> None:
    """What it printed instead is what a person needs."""
    with pytest.raises(ValueError, match="could not connect"):
        read_h2load("could not connect to host")


def test_several_at_once_add_up() -> None:
    """Rates and counts are sums, the mean is weighted, the maximum the greatest."""
    found = together([H2Load(100, 10, 0, 1.0, 5.0, 70), H2Load(300, 30, 2, 3.0, 4.0, 80)])
    assert found == H2Load(400, 40, 2, 2.5, 5.0, 150)
    with pytest.raises(ValueError, match="no h2load"):
        together([])
