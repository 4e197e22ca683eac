"""Training: `loop` is to be read from top to bottom.

`step` does what an epoch repeats, `speed` finds out how to do it fast on this machine, `optimize` has optimizers and
schedules, and `search` tries several ways to train a head.
"""

from __future__ import annotations

from zooft.train.loop import Job, Watch, fit

__all__ = ["Job", "Watch", "fit"]
