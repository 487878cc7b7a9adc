"""The scoring function as an ONNX graph whose weights are inputs: exported once, never for a new version."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from models.batch import F, Shape
from models.ranker import forward, initial, probabilities, users
from models.scorer import EXAMPLES, ROWS

logger = logging.getLogger(__name__)

SOURCES = ("export.py", "ranker.py")
"""Files that the graph is made of."""


class _Scoring(nn.Module):
    """The graph: examples, then row arrays, then dense weights, by position."""

    def __init__(self, dense: list[str]) -> None:
        super().__init__()
        self.dense = dense

    def forward(
        self, x: Tensor, row: Tensor, category: Tensor, user: Tensor, history_row: Tensor,
        history_category: Tensor, age: Tensor, place: Tensor, embedding: Tensor, bias: Tensor,
        category_rows: Tensor, dense: list[Tensor],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        w = dict(zip(self.dense, dense, strict=True))
        taste = users(w, embedding[history_row] + category_rows[history_category], age)
        out = forward(w, x, embedding[row] + category_rows[category], bias[row], taste, user, place)
        return out.score, probabilities(out)


def export(shape: Shape) -> bytes:
    """Bytes of the ONNX graph for models of this shape; takes seconds.

    Inputs are named as `EXAMPLES`, `ROWS` and the dense weights of `models.ranker`; outputs ``score`` [N]
    and ``p`` [N, T]. N and U are free.
    """
    dense = {name: torch.from_numpy(a) for name, a in initial(shape, np.random.default_rng(0)).items()}
    n, u = torch.export.Dim("n", min=1), torch.export.Dim("u", min=1)

    def index(*size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64)  # one each: the exporter merges equal inputs

    items, people, h = 6, 3, shape.history
    examples = (
        torch.zeros(items, F), index(items), index(items), index(items),
        index(people, h), index(people, h), torch.zeros(people, h), index(items),
    )  # fmt: skip
    rows = (
        torch.zeros(shape.rows, shape.width),
        torch.zeros(shape.rows),
        torch.zeros(shape.categories, shape.width),
    )
    free = [{0: n}] * 4 + [{0: u}] * 3 + [{0: n}]
    dynamic = (*free, None, None, None, [None] * len(dense))
    names = [*EXAMPLES, *ROWS, *dense]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on itself
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                _Scoring(list(dense)).eval(), (*examples, *rows, list(dense.values())),
                dynamo=True, verbose=False, optimize=True,
                input_names=names, output_names=["score", "p"], dynamic_shapes=dynamic,
            )  # fmt: skip
        finally:
            logging.disable(before)
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def cached(shape: Shape, folder: Path | None) -> bytes:
    """`export`, or what it returned for this shape, code and torch before.

    It is kept in `folder`, if there is one that can be written to.
    """
    if folder is None:
        return export(shape)
    here = Path(__file__).parent
    made_of = repr(shape).encode() + torch.__version__.encode()
    key = crc32(made_of + b"".join((here / name).read_bytes() for name in SOURCES))
    path = folder / f"scoring-{shape.schema:08x}-{key:08x}.onnx"
    if path.exists():
        return path.read_bytes()
    graph = export(shape)
    # another process may do the same at this moment: whoever is last wins, nobody reads half a file
    part = path.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(graph)
        part.replace(path)
    except OSError as error:
        logger.info("%s: the scoring graph is not kept: %s", folder, error.strerror)
    return graph
