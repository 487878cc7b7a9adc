"""Functions of tensors, recorded on a GPU as graphs.

A step of a small model is hundreds of kernels of microseconds each: to launch them one by one takes several
times longer than to run them. A graph is one launch; but it is of one shape, so ragged batches are padded to
one of few sizes (`roomy`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
"""Of something hashable, by which it may differ, and tensors."""


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    given: tuple[Tensor, ...]
    found: tuple[Tensor, ...]


class Recorded:
    """A function, recorded once for each key and shapes of its arguments, and replayed after that.

    Parameters
    ----------
    function
        It has no effects and reads nothing back from the device. What it knows beside its arguments must
        stay where it is in memory, and depend on the key alone otherwise.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, key: Hashable, *given: Tensor) -> tuple[Tensor, ...]:
        """What the function returns; the next call overwrites it."""
        which = key, *(tensor.shape for tensor in given)
        with torch.cuda.device(given[0].device):
            if which not in self._graphs:
                self._graphs[which] = self._record(key, given)
            graph, into, found = self._graphs[which]
            for there, here in zip(into, given, strict=True):
                there.copy_(here)
            graph.replay()
        return found

    def _record(self, key: Hashable, given: tuple[Tensor, ...]) -> _Graph:
        into = tuple(tensor.clone() for tensor in given)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):  # libraries choose their kernels and take their memory in the first runs
                self._function(key, *into)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            found = self._function(key, *into)
        return _Graph(graph, into, found)


def roomy(count: int) -> int:
    """The next of few sizes, at most a quarter more.

    >>> [roomy(count) for count in (1, 33, 800, 1000, 1025)]
    [8, 40, 896, 1024, 1280]
    """
    step = max(8, (1 << count.bit_length()) >> 3)
    return -(-count // step) * step
