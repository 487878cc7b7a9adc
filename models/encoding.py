"""Quantile bins of the numeric features, from a sample of the stream."""

from __future__ import annotations

import json

import numpy as np

from models.batch import Array, F


class Quantiles:
    """A bounded uniform sample of feature rows, and when to take new bins from it.

    Up to `memory` rows the sample is uniform over everything (Vitter's algorithm R); after that, newer
    rows replace older ones at a constant rate, so that the sample follows a drifting stream.

    Parameters
    ----------
    bins
        Bins per feature.
    rng
        Draws the sample.
    size
        Rows kept.
    memory
        Rows after which old ones fade.

    Examples
    --------
    >>> q = Quantiles(2, np.random.default_rng(0))
    >>> q.add(np.tile(np.arange(5, dtype=np.float32)[:, None], F))
    True
    >>> q.edges()[0].tolist()
    [0.0, 2.0, 4.0]
    """

    def __init__(
        self, bins: int, rng: np.random.Generator, size: int = 4096, memory: int = 1_000_000
    ) -> None:
        self.bins, self.memory = bins, memory
        self.sample = np.zeros((size, F), np.float32)
        self.seen = 0
        self._due = 1
        self._rng = rng

    def add(self, features: Array) -> bool:
        """Sample from rows [n, F]; True when the bins should be taken anew.

        That is at the first rows, at every doubling of their number, and every `memory` rows.
        """
        features = np.nan_to_num(features)
        size, n = len(self.sample), len(features)
        number = np.minimum(self.seen + np.arange(n), self.memory)
        slot = np.where(number < size, number, self._rng.integers(0, number + 1))
        taken = slot < size
        self.sample[slot[taken]] = features[taken]
        self.seen += n
        if self.seen < self._due:
            return False
        self._due = min(2 * self.seen, self.seen + self.memory)
        return True

    def edges(self) -> Array:
        """Bin edges of each feature, float32 [F, bins + 1], ascending."""
        sample = self.sample[: min(self.seen, len(self.sample))]
        return np.stack([_edges(column, self.bins) for column in np.sort(sample, axis=0).T])

    def state(self) -> dict[str, Array]:
        """Everything `load_state` needs."""
        draws = json.dumps(self._rng.bit_generator.state).encode()
        return {
            "sample": self.sample.copy(),
            "counts": np.array([self.seen, self._due]),
            "draws": np.frombuffer(draws, np.uint8),
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Continue from `state`, with the same draws."""
        self.sample[:] = state["sample"]
        self.seen, self._due = (int(v) for v in state["counts"])
        self._rng.bit_generator.state = json.loads(state["draws"].tobytes())


def _edges(ascending: Array, bins: int) -> Array:
    """Quantiles after a frequent value was cut to one bin's share, so that it cannot take them all.

    >>> _edges(np.array([0.0] * 97 + [1, 2, 3]), 3).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    values, counts = np.unique(ascending, return_counts=True)
    if len(values) <= bins + 1:
        return np.pad(values, (0, bins + 1 - len(values)), mode="edge").astype(np.float32)
    weight = counts.astype(np.float64)
    for _ in range(bins):  # cutting one value lowers the share of a bin
        weight = np.minimum(weight, weight.sum() / bins)
    middle = np.cumsum(weight) - weight / 2
    middle = (middle - middle[0]) / (middle[-1] - middle[0])
    edges: Array = np.interp(np.linspace(0, 1, bins + 1), middle, values)
    return edges.astype(np.float32)


def rebin(weight: Array, before: Array, after: Array) -> tuple[Array, Array]:
    """Weights that keep the encoded function when its edges move.

    Encoded and weighted, a feature is a piecewise-linear function with its knots at the edges; the new
    weights are its increments between the new edges.

    Parameters
    ----------
    weight : float32 [F, V, bins]
    before, after : float32 [F, bins + 1]
        Edges.

    Returns
    -------
    weight : float32 [F, V, bins]
    offset : float32 [F, V]
        Value at the first new edge, to add to what the sum starts from.
    """
    knots = np.cumsum(np.pad(weight, ((0, 0), (0, 0), (1, 0))), axis=2, dtype=np.float64)
    out, offset = weight.copy(), np.zeros(weight.shape[:2], np.float32)
    for f in range(len(weight)):
        edges, first = np.unique(before[f], return_index=True)
        if len(edges) == 1:
            continue  # no value has filled a bin yet: nothing was learned
        at = np.stack([np.interp(after[f], edges, knot[first]) for knot in knots[f]])
        out[f], offset[f] = np.diff(at), at[:, 0]
    return out, offset


def rebinned(w: dict[str, Array], before: Array, after: Array) -> dict[str, Array]:
    """Those dense weights (`models.ranker`) that change when the edges do, so that the function stays."""
    parts = np.concatenate([w["encode"], w["wide"].transpose(1, 0, 2)], axis=1)
    moved, offset = rebin(parts, before, after)
    constant = w["deep1"] @ offset[:, :-2].ravel()
    return {
        "encode": moved[:, :-2],
        "deep1_bias": w["deep1_bias"] + constant,
        "wide": moved[:, -2:].transpose(1, 0, 2),
        "wide_bias": w["wide_bias"] + offset[:, -2:].sum(0),
    }
