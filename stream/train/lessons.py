"""What a list teaches of the probabilities, and when, while carts and purchases come minutes later.

====== ==================================================================================================
naive  carts and purchases are taught with the clicks, when the wait for those is over; later ones by replay
wait   they are taught once, when the list is mature: when they have had their time
fnw,   with the clicks, each impression is taught as one without cart and purchase; each of these is taught
fnc    once more as a positive when it is known. `models.losses` says how that gives the right probability;
       at first, fewer are (`stream.train.delays`)
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


def news(labels: Array, told: Array, ends: Array, over: Array) -> Array:
    """Of what happened, what counts from now on (bits, uint8 [N]), however it is taught.

    A click counts when the wait for it ends, or never; carts and purchases from then on, once, when they are
    known.

    Parameters
    ----------
    labels, told
        What happened, as far as it is known; and what of it counted before.
    ends, over
        Whether the wait for clicks ends now; and whether it has ended, now or before.

    Examples
    --------
    >>> clicked, carted, none, yes = (np.array([bits], np.uint8) for bits in (1, 2, 0, 1))
    >>> news(clicked | carted, none, yes, yes).tolist(), news(clicked | carted, none, none, yes).tolist()
    ([3], [2])
    """
    counts: Array = labels & (ends * np.uint8(CLICK) | over * np.uint8(CONVERSIONS) & ~told)
    return counts


def lesson(delayed: str, labels: Array, new: Array, settles: Array) -> Lesson:
    """What items teach now; tasks are bits, columns are uint8 [N].

    Parameters
    ----------
    delayed
        ``naive``, ``wait``, ``fnw`` or ``fnc``.
    labels, new
        What happened, as far as it is known; and what of it is `news`.
    settles
        Tasks whose time comes now.

    Examples
    --------
    >>> clicked, bought, none, all_ = (np.array([bits], np.uint8) for bits in (1, 4, 0, 7))
    >>> first = lesson("fnw", clicked, clicked, all_)  # whether it is bought, nobody knows yet
    >>> later = lesson("fnw", clicked | bought, bought, none)
    >>> [(int(part.positive[0]), int(part.negative[0])) for part in (first, later)]
    [(1, 6), (4, 0)]
    """
    if delayed in FAKE:
        return Lesson(new, (~labels | CONVERSIONS) & settles)
    return Lesson(labels & settles, ~labels & settles)
