"""Ten million items pass through a hundred thousand rows: flat memory, the oldest leave, nobody inherits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.admission import Admitted, resolve
from models.batch import Array, Shape
from models.learner import Learner
from models.served import Served
from tests.models.test_learner import act
from tests.models.toy import MONDAY, ids, lists

SHAPE = Shape(rows=100_000, categories=64, width=8, hidden=16, history=8, neighbours=4)
ITEMS = 10_000_000
BATCH = 40_000
"""New items at a time, as many sightings of older ones beside them."""
HEAD = 2_000
"""Items that never go out of fashion."""
BACK = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
"""Undoes `ids`."""


def numbers(hashes: Array) -> Array:
    return (hashes * BACK).astype(np.int64)


class Passage:
    """A learner that sees items come and go, and what is known of every item from outside of it."""

    def __init__(self, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learner = Learner(SHAPE, device="cpu", graphs=graphs)
        self.rng, self.tick, self.upto = np.random.default_rng(0), 0, HEAD
        # when each item was seen last; written once, so that its memory is there from the start
        self.last = np.full(HEAD + ITEMS + BATCH, -1, np.int32)
        self.evicted = self.learned = 0  # rows taken back; rows given anew that somebody had learned in
        self.served = Served.load(self.learner.snapshot(), SHAPE)
        admit = self.learner.admission.admit

        def admit_and_check(seen: Array) -> Admitted:
            squares = self.learner.trainer.items.squares["embedding"].numpy().copy()
            admitted = admit(seen)
            self._oldest_first(admitted.former)
            self.learned += int(np.count_nonzero(squares[admitted.rows]))
            self.admitted = admitted
            return admitted

        monkeypatch.setattr(self.learner.admission, "admit", admit_and_check)

    def step(self) -> None:
        """New items, most of them seen once; older ones the rarer the older; the head as always."""
        self.tick += 1
        age = (BATCH / 2 * (self.rng.random(BATCH) ** (-1 / 1.2) - 1)).astype(np.int64)
        new = np.arange(self.upto + 1, self.upto + 1 + BATCH)
        old = new[-1] - age
        old = np.where(old > HEAD, old, self.rng.zipf(1.3, BATCH) % HEAD + 1)
        head = self.rng.zipf(1.3, BATCH // 4) % HEAD + 1
        seen = np.concatenate([new, old, head])
        self.upto = int(new[-1])
        self.last[seen] = self.tick
        hashes = ids(seen)
        named = dict(zip(hashes[:BATCH].tolist(), map(str, new.tolist()), strict=True))
        self.learner.see(hashes, named, MONDAY + self.tick)
        self._nobody_inherits()
        self._learn(ids(old[:1000]))
        if self.tick % 5 == 0:
            self.served.apply(self.learner.delta(880_000))

    def _learn(self, items: Array) -> None:
        batch = lists(self.rng, 64, history=SHAPE.history)
        batch = replace(
            batch,
            item=self.rng.choice(items, len(batch.item)),
            history=np.where(batch.history > 0, self.rng.choice(items, batch.history.shape), np.uint64(0)),
        )
        act(self.learner, batch, MONDAY + self.tick)
        assert np.isfinite(self.learner.learn(batch))

    def _oldest_first(self, former: Array) -> None:
        """Whoever lost a row was seen no later than anybody who kept one."""
        self.evicted += len(former)
        owners = self.learner.table.ids
        kept = self.last[numbers(owners[owners != 0])]
        if len(former):
            assert self.last[numbers(former)].max() <= kept.min()

    def _nobody_inherits(self) -> None:
        """Who got a row in this step begins as the shared row that it had, with a new optimiser."""
        rows, new = self.learner.trainer.items, self.admitted.rows
        cold = resolve(np.full(len(new), -1), self.admitted.ids, SHAPE.cold)
        for name, values in rows.arrays().items():
            assert (values[new] == values[cold]).all()
            assert not rows.squares[name].numpy()[new].any()


def resident() -> float:
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_ten_million_items_pass_through_a_hundred_thousand_rows(
    graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passage = Passage(graphs, monkeypatch)
    learner = passage.learner
    memory = []
    for upto in range(ITEMS // 10, ITEMS + 1, ITEMS // 10):
        while passage.upto < upto:
            passage.step()
        memory.append(resident())
    print(f"{passage.evicted} rows taken back, {passage.learned} given anew had been learned in")
    print("MB:", *(f"{each:.0f}" for each in memory))
    assert passage.evicted > 10 * SHAPE.rows
    assert passage.learned > 10_000
    filled = memory[1:]  # rows and names have as many as they may have by then
    assert max(filled[4:]) - max(filled[:4]) < 10
    assert len(learner.table) <= SHAPE.rows - SHAPE.cold
    assert len(learner.names.of_row) <= len(learner.table)
    assert len(learner.names.waiting) <= 2 * SHAPE.rows
    assert (learner.table.lookup(ids(np.arange(1, 101))) >= 0).all()  # the head never left
