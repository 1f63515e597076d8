"""Which key is next: names of keys, and how their numbers are drawn. Pure; uniform numbers are an argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

from kv.errors import InvalidArgument

PREFIX: Final = b"bench-"
"""All keys of the load generator begin with this, so that they can be told from others and removed."""

PREFIX_END: Final = b"bench."
"""The first key that is above all that begin with `PREFIX`."""

THETA_MAX: Final = 10.0
"""Above this a zipfian choice is the first key nearly always: a mistake."""

Uniform: TypeAlias = Callable[[], float]
"""Returns uniform numbers in [0, 1)."""

Choice: TypeAlias = Callable[[], int]
"""Returns numbers of keys, from 0."""


Name: TypeAlias = Callable[[int], bytes]
"""Returns the name of a key by its number."""


def key_name(key_bytes: int) -> Name:
    """Return what gives the name of a key: the prefix and its number in decimal, so that names are in the order of numbers."""
    form = b"%b%%0%dd" % (PREFIX, key_bytes - len(PREFIX))
    return lambda number: form % number


def key_bytes_min(keys: int) -> int:
    """Return how long the names of so many keys are at least."""
    return len(PREFIX) + len(str(keys - 1))


def uniform_choice(keys: int, uniform: Uniform) -> Choice:
    """Return a choice among `keys` keys, each as likely as any other."""
    return lambda: int(uniform() * keys)


def zipfian_choice(keys: int, theta: float, uniform: Uniform) -> Choice:
    """Return a choice in which key k has a share in proportion to 1 / (k + 1) ** theta.

    Rejection-inversion (W. Hörmann, G. Derflinger: "Rejection-inversion to generate variates from monotone discrete
    distributions", TOMACS 6(3), 1996): exact for every theta above 0, without a table or a sum over all keys.
    The hottest keys have the lowest numbers; the ring spreads them over the partitions by the hash of their names.

    Raises:
        InvalidArgument: theta is not above 0 and at most `THETA_MAX`.
    """
    if not 0.0 < theta <= THETA_MAX:
        raise InvalidArgument(
            f"the theta {theta:g} of a zipfian distribution is not above 0 and at most {THETA_MAX:g}"
        )
    low = _integral(1.5, theta) - 1.0
    high = _integral(keys + 0.5, theta)
    sure = 2.0 - _inverse(_integral(2.5, theta) - 2.0**-theta, theta)

    def choose() -> int:
        while True:
            area = high + uniform() * (low - high)
            at = min(_inverse(area, theta), keys + 0.5)
            rank = min(max(int(at + 0.5), 1), keys)
            if rank - at <= sure or area >= _integral(rank + 0.5, theta) - rank**-theta:
                return rank - 1

    return choose


def _integral(x: float, theta: float) -> float:
    """Return an antiderivative of x ** -theta, also where theta is 1."""
    log = math.log(x)
    power = (1.0 - theta) * log
    return log * (math.expm1(power) / power if abs(power) > _TINY else 1.0 + power / 2.0)


def _inverse(area: float, theta: float) -> float:
    """Return the x of which `_integral` is `area`."""
    power = max(area * (1.0 - theta), -1.0)  # rounding may bring it below
    if power == -1.0:
        return math.inf
    return math.exp(area * (math.log1p(power) / power if abs(power) > _TINY else 1.0 - power / 2.0))


_TINY: Final = 1e-8
"""Below this the first terms of the series are as exact as a float is."""
