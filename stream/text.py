"""Numbers as people read them; what is unknown is a dash."""

from __future__ import annotations

import math

NONE = "-"


def percent(value: float | None, digits: int = 0, sign: str = "") -> str:
    """Text of a share.

    >>> percent(0.0812, 1), percent(None)
    ('8.1%', '-')
    """
    return NONE if value is None else f"{value:{sign}.{digits}%}"


def signed(value: float | None) -> str:
    """Text of a change.

    >>> signed(0.12)
    '+12.0%'
    """
    return percent(value, 1, "+")


def span(low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """Text of an interval.

    >>> span(-0.02, 0.5, 0, "+")
    '-2% to +50%'
    """
    if low is None or high is None:
        return NONE
    return f"{percent(low, digits, sign)} to {percent(high, digits, sign)}"


def number(value: float | None, digits: int = 3) -> str:
    """Text of a plain number.

    >>> number(0.5), number(None)
    ('0.500', '-')
    """
    return NONE if value is None else f"{value:.{digits}f}"


def milliseconds(value: float) -> str:
    """Text of a latency given in ms.

    >>> milliseconds(4.2), milliseconds(1500), milliseconds(float("inf"))
    ('4.2 ms', '1.5 s', 'over the scale')
    """
    if math.isinf(value):
        return "over the scale"
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"
