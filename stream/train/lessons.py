"""What a list teaches of the probabilities, and when, while carts and purchases come minutes later.

====== ==================================================================================================
naive  carts and purchases are taught with the clicks, when the wait for those is over; later ones by replay
wait   they are taught once, when the list is mature: when they have had their time
fnw,   with the clicks, each impression is taught as one without cart and purchase; each of these is taught
fnc    once more as a positive when it is known. `models.losses` says how that gives the right probability
====== ==================================================================================================
"""

from __future__ import annotations

import numpy as np

from models.batch import CLICK, CONVERSIONS, Array, Lesson

FAKE = ("fnw", "fnc")
"""Ways that begin with negatives that may turn out to be fake."""


def due(delayed: str, waited: Array, mature: Array) -> Array:
    """Tasks (bits, uint8 [B]) that lists teach that have waited for their clicks, and those that are mature.

    >>> waited, mature = np.array([False, True, True]), np.array([False, False, True])
    >>> [due(delayed, waited, mature).tolist() for delayed in ("wait", "fnw")]
    [[0, 1, 7], [0, 7, 7]]
    """
    at_once = CLICK if delayed == "wait" else CLICK | CONVERSIONS
    return waited * np.uint8(at_once) | mature * np.uint8(CONVERSIONS)


def known(delayed: str, mature: Array) -> Array:
    """Tasks (bits, uint8 [B]) whose labels have come, as far as they will, of lists that have settled.

    Whoever looks again at a list that is not mature (the gate, what is replayed) would take a sale yet to
    come for none, as ``naive`` does.
    """
    tasks: Array = np.uint8(CLICK) | ((delayed == "naive") | mature) * np.uint8(CONVERSIONS)
    return tasks


def lesson(delayed: str, labels: Array, taught: Array, settles: Array, settled: Array) -> Lesson:
    """What items teach now; tasks are bits, columns are uint8 [N].

    Parameters
    ----------
    delayed
        ``naive``, ``wait``, ``fnw`` or ``fnc``.
    labels
        What happened, as far as it is known.
    taught
        What was taught as a positive before.
    settles, settled
        Tasks whose time comes now; and those whose time has come, now or before.

    Examples
    --------
    >>> bought, none, settled = (np.array([bits], np.uint8) for bits in (0b101, 0, 0b111))
    >>> first = lesson("fnw", bought & 1, none, settled, settled)  # clicked; whether bought, nobody knows yet
    >>> later = lesson("fnw", bought, first.positive, none, settled)
    >>> [(int(part.positive[0]), int(part.negative[0])) for part in (first, later)]
    [(1, 6), (4, 0)]
    """
    if delayed not in FAKE:
        return Lesson(labels & settles, ~labels & settles)
    news = labels & settled & CONVERSIONS & ~taught
    return Lesson(labels & settles & CLICK | news, (~labels | CONVERSIONS) & settles)
