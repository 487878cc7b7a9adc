"""Amounts in one byte, on a logarithmic scale: enough for what is only ever compared.

    amount(b) = `LEAST` (`STEP`^b - 1),  b = 0 .. 255

From 0 to 50,000; above 0.1, no further than 4% off.

>>> [round(float(AMOUNTS[to_byte(amount)]), 3) for amount in (0.0, 0.05, 1.0, 1000.0)]
[0.0, 0.052, 0.992, 1005.759]
"""

from __future__ import annotations

import math

import numba
import numpy as np

LEAST = 0.01
STEP = 1.0625

AMOUNTS = (LEAST * (STEP ** np.arange(256) - 1)).astype(np.float32)
"""What each byte means: float32 [256]."""


@numba.njit(cache=True)
def to_byte(amount: float) -> int:
    """The byte that comes closest to an amount (>= 0), on the logarithmic scale."""
    return int(min(math.floor(math.log1p(amount / LEAST) / math.log(STEP) + 0.5), 255))
