"""Whether numbers can be Hounsfield units: the evidence of their histogram, for slices and for volumes alike.

Air is -1000, fat -100, water 0, soft tissue up to 100, bone from 300 on (Hounsfield 1973). A header that has lost its
intercept or its sign, or has another slope, moves these peaks to where nothing of a body lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BELOW_AIR, BEYOND_METAL = -1100, 20_000
"""HU that nothing has."""
NO_AIR = -200
"""HU of what is thinner than any tissue but lung, from here downwards."""
_LOWEST, _HIGHEST = -1024, 3071
_SURELY_AIR = -800
_DEEPEST = -(2**16)
_PADDING = 150
"""HU: lossy compression blurs padding by so much."""
_DENSE, _METAL = 500, 3000
_LOST = (800, 1200)
"""Where fat and soft tissue come to lie without the usual intercept of -1024; of real slices, 3 % do at most."""
_SOFT = (-250, 300)
_AIR = -940
_ALL_AIR, _THIN, _WIDE = -985, -650, 75
"""HU: air around a body is thinner than the first, lung than the second.

And so wide is lung, from the 5th percentile to the 95th.
"""
_FEW, _SOME, _MUCH = 0.01, 0.05, 0.1
_HARDLY = 0.15
"""Of what is neither soft nor air: real slices have twice as much that is soft, at least."""
_DENSER = 0.2
_WRAPPED = 0.1
"""More than noise makes that is darker than the darkest number, and that some writers let wrap around."""
BRIGHT = 0.01
"""Of a slice at the highest HU: more is worth a note."""


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """Numbers that clipping hides.

    Attributes:
        under: how many lie at each HU from `_DEEPEST` to `BELOW_AIR`; of no length where none does.
        over: how many lie above `BEYOND_METAL`.
    """

    under: NDArray[np.int64]
    over: int

    def __add__(self, other: Beyond) -> Beyond:
        both = self.under + other.under if self.under.size and other.under.size else None
        return Beyond(
            (self.under if self.under.size else other.under) if both is None else both, self.over + other.over
        )

    @property
    def but_lowest(self) -> int:
        """How many lie below `BELOW_AIR`, but for the lowest number, which may be padding that isn't declared."""
        found = self.under.nonzero()[0]
        return int(self.under[found[1:]].sum())

    @property
    def scattered(self) -> int:
        """How many lie below `BELOW_AIR` and not close to most of these, as padding does."""
        import numpy as np

        if not self.under.size:
            return 0
        total = self.under.cumsum()
        middle = int(np.searchsorted(total, total[-1] / 2))
        return int(total[-1] - self.under[max(0, middle - _PADDING) : middle + _PADDING + 1].sum())


def beyond(numbers: NDArray[Any], slope: float, intercept: float) -> Beyond:
    """Of stored numbers without padding, those whose ``slope * number + intercept`` nothing has."""
    import numpy as np

    if numbers.dtype.kind == "f":
        numbers = numbers[np.isfinite(numbers)]
    below, above = (_end(numbers, (end - intercept) / slope) for end in (BELOW_AIR, BEYOND_METAL))
    low, over = numbers[numbers < below], int(np.count_nonzero(numbers > above))
    if not low.size:
        return Beyond(np.zeros(0, np.int64), over)
    hu = np.rint(low.astype(np.float64) * slope + intercept).clip(_DEEPEST, BELOW_AIR)
    return Beyond(np.bincount((hu - _DEEPEST).astype(np.int64), minlength=BELOW_AIR - _DEEPEST + 1), over)


def _end(numbers: NDArray[Any], limit: float) -> Any:
    """A limit in the numbers' own type, which compares fast; rounded, since none of the limits is that sharp."""
    import numpy as np

    if numbers.dtype.kind == "f":
        return numbers.dtype.type(limit)
    kind = np.iinfo(numbers.dtype)
    return numbers.dtype.type(min(max(round(limit), int(kind.min)), int(kind.max)))


def misfit(values: NDArray[np.int16], hidden: Beyond, *, padded: int = 0) -> str:
    """Why the values can't be HU, with the numbers that show it; "" where they can.

    Args:
        values: of a slice or a volume, clipped to [-1024, 3071].
        hidden: what was clipped.
        padded: how many of them stand for nothing; these are -1024.
    """
    import numpy as np

    count = values.size - padded
    if not count:
        return ""
    lowest, highest = int(values.min()), int(values.max())
    dense = np.count_nonzero(values >= _DENSE) / count
    if reason := _beyond_all(hidden, count, highest):
        return reason
    if dense > 0.5:
        return f"{_percent(dense)} of them lie above {_DENSE}, and no body is mostly bone: a lost intercept or sign"
    if not padded and lowest >= 0:
        return f"they go from {lowest} to {highest}, and a CT has air and fat below 0: a lost intercept"
    alike = int(np.count_nonzero(values == lowest))
    if alike > _SOME * values.size:  # padding that isn't declared, or is another number
        values, count = values[values != lowest], values.size - alike
    return _elsewhere(values) if count else ""


def _beyond_all(hidden: Beyond, count: int, highest: int) -> str:
    """Why too many lie where nothing does."""
    if hidden.over > _WRAPPED * count:
        return (
            f"{_percent(hidden.over / count)} of them lie above {BEYOND_METAL}, as negative numbers do that are read "
            "without their sign"
        )
    if hidden.scattered > _SOME * count:
        return (
            f"{_percent(hidden.scattered / count)} of them lie below {BELOW_AIR}, where nothing is: another intercept"
        )
    if highest < 0 and hidden.but_lowest > _SOME * count:
        return f"all of them lie below 0, {_percent(hidden.but_lowest / count)} below {BELOW_AIR}: another intercept"
    return ""


def _elsewhere(values: NDArray[np.int16]) -> str:
    """Why the peaks of a body lie in other places; `values` are without padding."""
    import numpy as np

    def share(low: int) -> float:
        return int(np.count_nonzero(values >= low)) / values.size

    metal, lost, thin = share(_METAL), share(_LOST[0]) - share(_LOST[1]), 1 - share(NO_AIR)
    if metal > _WRAPPED:
        return f"{_percent(metal)} of them lie above {_METAL}, where there is only metal: another sign"
    if thin < _FEW and lost > _SOME:
        return (
            f"{_percent(lost)} of them lie between {_LOST[0]} and {_LOST[1]} and {_percent(thin)} below {NO_AIR}, as "
            "where the intercept of -1024 is lost, so that air is near 0"
        )
    soft = share(_SOFT[0]) - share(_SOFT[1])
    other = share(_AIR) - soft
    if other > _MUCH and not _is_lung(values) and (soft < _HARDLY * other or lost > max(_SOME, soft)):
        return (
            f"{_percent(soft)} of them lie between {_SOFT[0]} and {_SOFT[1]}, where fat and soft tissue do, and "
            f"{_percent(other)} are neither that nor air: another slope or intercept"
        )
    return ""


def _is_lung(values: NDArray[np.int16]) -> bool:
    """Whether a picture is cut out of a lung: no air around it, and a width that no slope below one leaves."""
    import numpy as np

    low, middle, high = np.percentile(values, (5, 50, 95))
    if not (low > _ALL_AIR and middle < _THIN and high - low > _WIDE):
        return False
    between = np.count_nonzero((values > _THIN) & (values < _SOFT[0])) + np.count_nonzero(values > _SOFT[1])
    return bool(between < _DENSER * values.size)  # where soft tissue would be found under another slope


def oddity(hu: NDArray[np.int16]) -> str:
    """What is worth reporting of a slice that may be HU all the same; "" for others."""
    import numpy as np

    if np.count_nonzero(hu >= _HIGHEST) > BRIGHT * hu.size:
        return f"more than {BRIGHT:.0%} of their values at {_HIGHEST}: metal, or negative numbers that lost their sign"
    if not np.count_nonzero((hu < _SURELY_AIR) & (hu > _LOWEST)):
        return (
            f"no air, nothing between {_LOWEST} and {_SURELY_AIR}: air is masked or cut out, or it is another "
            "slope or intercept"
        )
    if np.count_nonzero(hu > _SOFT[0]) < _MUCH * hu.size and _is_lung(hu):
        return "lung and hardly anything else: cut out of one, or it is another slope or intercept"
    return ""


def _percent(share: float) -> str:
    return f"{max(share, 0.0):.1%}" if share < _SOME else f"{share:.0%}"
