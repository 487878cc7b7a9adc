"""The exported graph (`models.export`) in its session (`models.scorer`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.admission import resolve
from models.batch import Array, Lists, Shape
from models.export import cached
from models.scorer import Scorer
from models.table import Table
from models.trainer import Trainer
from tests.models.toy import ITEMS, SHAPE, ids, lists


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    table = Table(SHAPE.rows)
    table.put(ids(np.arange(1, ITEMS // 2)), np.arange(SHAPE.cold, SHAPE.cold + ITEMS // 2 - 1))
    t, rng = Trainer(SHAPE, table, seed=0, device="cpu"), np.random.default_rng(0)
    for _ in range(20):
        batch = lists(rng, 16)
        t.observe(batch.features)
        t.learn(batch)
    return t


def scorer(trainer: Trainer, graphs: Path) -> Scorer:
    return Scorer(cached(SHAPE, graphs), trainer.dense(), trainer.rows())


def arguments(t: Trainer, batch: Lists) -> tuple[Array, ...]:
    def rows(numbers: Array) -> Array:
        return resolve(t.table.lookup(numbers), numbers, SHAPE.cold)

    of = np.repeat(np.arange(len(batch)), np.diff(batch.start))
    history, category = rows(batch.history), batch.history_category
    return (
        batch.features, rows(batch.item), batch.category, of, history, category, batch.age, batch.place,
    )  # fmt: skip


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 50), (3, 7), (40, 8)])
def test_graph_scores_as_the_trainer_does(trainer: Trainer, graphs: Path, count: int, size: int) -> None:
    batch = lists(np.random.default_rng(5), count, size)
    score, p = scorer(trainer, graphs).score(*arguments(trainer, batch))
    expected = trainer.predict(batch)
    np.testing.assert_allclose(score, expected.score, atol=1e-5)
    np.testing.assert_allclose(p, expected.p, atol=1e-5)


def test_no_place_is_an_average_one(trainer: Trainer, graphs: Path) -> None:
    batch = lists(np.random.default_rng(5), 4)
    *given, place = arguments(trainer, batch)
    s = scorer(trainer, graphs)
    np.testing.assert_array_equal(s.score(*given)[1], s.score(*given, 0 * place)[1])


def test_written_rows_are_seen_by_the_next_score(trainer: Trainer, graphs: Path) -> None:
    rows = {name: array.copy() for name, array in trainer.rows().items()}
    s = Scorer(cached(SHAPE, graphs), trainer.dense(), rows)
    given = arguments(trainer, lists(np.random.default_rng(5), 4))
    before, _ = s.score(*given)
    rows["bias"] += 1.5
    s.refresh(["bias"])
    np.testing.assert_allclose(s.score(*given)[0], before + 1.5, atol=1e-5)


def test_written_dense_weights_are_seen_too(trainer: Trainer, graphs: Path) -> None:
    dense = trainer.dense()
    s = Scorer(cached(SHAPE, graphs), dense, trainer.rows())
    given = arguments(trainer, lists(np.random.default_rng(5), 4))
    before, _ = s.score(*given)
    dense["wide_bias"][0] += 5
    np.testing.assert_allclose(s.score(*given)[0], before + 0.5, atol=1e-5)


def test_nothing_to_score_is_no_score(trainer: Trainer, graphs: Path) -> None:
    score, p = scorer(trainer, graphs).score(*arguments(trainer, lists(np.random.default_rng(5), 0)))
    assert score.shape == (0,)
    assert p.shape == (0, 3)


def test_array_of_another_shape_is_refused(trainer: Trainer, graphs: Path) -> None:
    dense = trainer.dense() | {"deep3": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match="'deep3' is float32"):
        Scorer(cached(SHAPE, graphs), dense, trainer.rows())


def test_unknown_array_is_refused(trainer: Trainer, graphs: Path) -> None:
    with pytest.raises(ValueError, match="no input 'deep9'"):
        Scorer(cached(SHAPE, graphs), trainer.dense() | {"deep9": np.zeros(3, np.float32)}, trainer.rows())


def test_missing_array_is_refused(trainer: Trainer, graphs: Path) -> None:
    dense = trainer.dense()
    del dense["dot"]
    with pytest.raises(ValueError, match="the graph needs dot"):
        Scorer(cached(SHAPE, graphs), dense, trainer.rows())


def test_graph_is_exported_once(tmp_path: Path, graphs: Path) -> None:
    (kept,) = graphs.iterdir()
    shape_file = tmp_path / kept.name
    shape_file.write_bytes(b"kept before")
    assert cached(SHAPE, tmp_path) == b"kept before"
    assert [p.name for p in graphs.iterdir()] == [kept.name]


def test_serving_needs_no_torch() -> None:
    code = "import sys, models.served; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_graph_that_is_kept_belongs_to_one_shape(graphs: Path) -> None:
    (kept,) = graphs.iterdir()
    assert f"{SHAPE.schema:08x}" in kept.name
    assert f"{Shape().schema:08x}" not in kept.name
