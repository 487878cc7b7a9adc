"""Scores with ONNX Runtime; weights are inputs of the graph, bound once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnxruntime as ort

from models.batch import TASKS, Array

ALIASES = {"category": "category_rows"}
"""Row arrays that the graph knows by another name, because an input has theirs."""

EXAMPLES = {
    "x": np.float32,
    "row": np.int64,
    "category": np.int64,
    "user": np.int64,
    "history_row": np.int64,
    "history_category": np.int64,
    "age": np.float32,
    "place": np.int64,
}
"""Inputs of the graph that differ from run to run, and their types; see `Scorer.score`."""

ROWS = ("embedding", "bias", "category_rows")
"""Inputs that are row arrays: [R, D], [R] and [C, D]."""

QUIET = 3
"""ONNX Runtime's log severity for errors only."""


class Scorer:
    """A session with its weights.

    On the CPU the session reads the arrays given here where they are: write into them, and the next
    `score` sees it. On a GPU they are copied, and again by `refresh`. Not for several threads at once,
    and nobody may write to the arrays during a `score`.

    Parameters
    ----------
    graph
        From `models.export.export`.
    dense, rows
        Float32 arrays by name, C-contiguous: `models.trainer.Trainer.dense` and `rows`.
    threads
        Of one `score`.
    device
        ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        When an array is missing, or of another shape than the graph's, or there is no such device.
    """

    def __init__(
        self,
        graph: bytes,
        dense: Mapping[str, Array],
        rows: Mapping[str, Array],
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
        if provider not in ort.get_available_providers():
            raise ValueError(f"ONNX Runtime has no {provider} here; use device='cpu'")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = QUIET
        # an idle thread of ours must not take a core from the other roles
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=[provider])
        self._device = device
        self._arrays = {ALIASES.get(name, name): array for name, array in {**dense, **rows}.items()}
        self._binding = self._session.io_binding()
        self._values: dict[str, ort.OrtValue] = {}
        inputs = {i.name: i for i in self._session.get_inputs()}
        for name, array in self._arrays.items():
            if name not in inputs:
                raise ValueError(f"the graph has no input {name!r}")
            _check(name, array, inputs[name].shape)
            self._values[name] = ort.OrtValue.ortvalue_from_numpy(array, device, 0)
            self._binding.bind_ortvalue_input(name, self._values[name])
        if missing := set(inputs) - set(self._values) - set(EXAMPLES):
            raise ValueError(f"the graph needs {', '.join(sorted(missing))}")

    def score(
        self,
        x: Array,
        row: Array,
        category: Array,
        user: Array,
        history_row: Array,
        history_category: Array,
        age: Array,
        place: Array | None = None,
    ) -> tuple[Array, Array]:
        """Score N items for U users.

        Parameters
        ----------
        x : float32 [N, F]
            Raw features.
        row, category : int64 [N]
            Of the items, see `models.admission.resolve`.
        user : int64 [N]
            Index of each item's user.
        history_row, history_category : int64 [U, H]
            Newest first; anything where empty.
        age : float32 [U, H]
            Seconds; -1 where empty.
        place : int64 [N], optional
            Where it was shown in a slate of ours, from 1: moves the probabilities. Without: an average place.

        Returns
        -------
        score : float32 [N]
        p : float32 [N, T]
        """
        if not len(x):
            return np.empty(0, np.float32), np.empty((0, len(TASKS)), np.float32)
        given = {
            "x": x, "row": row, "category": category, "user": user, "history_row": history_row,
            "history_category": history_category, "age": age,
            "place": np.zeros(len(x), np.int64) if place is None else place,
        }  # fmt: skip
        binding = self._binding
        # the arrays must live until the run is over
        inputs = {n: np.ascontiguousarray(a, EXAMPLES[n]) for n, a in given.items()}
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        # the number of items varies: the session allocates
        binding.bind_output("score")
        binding.bind_output("p")
        self._session.run_with_iobinding(binding)
        score, p = binding.copy_outputs_to_cpu()
        return score, p

    def refresh(self, names: Iterable[str]) -> None:
        """Copy these arrays to the device again; on the CPU there is nothing to do."""
        if self._device == "cpu":
            return
        for name in names:
            alias = ALIASES.get(name, name)
            self._values[alias].update_inplace(self._arrays[alias])


def _check(name: str, array: Array, shape: list[int]) -> None:
    if array.dtype != np.float32 or list(array.shape) != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{name!r} is {array.dtype} {list(array.shape)}; the graph wants float32 {shape}, C-contiguous"
        )
