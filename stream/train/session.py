"""Everything that train holds while the partitions are its own, and what one turn of the loop does.

::

    process   messages are decoded; what cannot be is a dead letter
    tick      1 arrive   lists are predicted with what is known before them, then kept; labels join them
              2 learn    ready lists, and some of the past, in a bounded number of steps
              3 publish  every second: the gate judges, then a delta goes out or the model goes back
              4 count    every second: how good the predictions were, by the labels of now

All that came in one turn is predicted together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from models.batch import CLICK, CONVERSIONS, TASKS, Array, Lesson, Lists
from models.learner import Learner
from stream.checkpoint import Store
from stream.counts import Counts, split_blocks
from stream.dead_letters import dead_letter
from stream.errors import Poison
from stream.log import Output, Records
from stream.messages import encode_binary
from stream.settings import Settings, shape_of
from stream.train import measure
from stream.train.buffer import AT_ONCE, Buffer, Guess
from stream.train.delays import Delays
from stream.train.join import Acts, Batch, Labels, Shown, decode, merge, select
from stream.train.lessons import FAKE
from stream.train.partitions import Partitions
from stream.train.publish import Label, Publisher
from stream.train.sales import Sales
from stream.train.shadows import LAGS, Shadows
from stream.train.streamtime import StreamTime

BLOCK = 512
"""Messages in a block of counts: each second has hundreds of rows, so blocks must end soon."""

STEPS = 15
"""Training steps in one turn, or a few more: about 100 ms, then the log is polled again."""

BEHIND_S = 0.5
"""After so long with full batches left over, nothing is replayed and batches are `LARGER` times as large, for
which a list costs a third less: what is new must be learned within a second."""
LARGER = 4

REPLAYS = 25
"""Batches of the past between two versions, at most: where so much is new, more would only cost time."""

BEFORE = 4
"""Batches that may have been learned before it was clear that the world has changed."""

TOGETHER = 512
"""Lists predicted at once: bounds memory."""

NEWEST = "0"
"""Lag of the model that learns."""

COUNT_S = 1.0

FORESEE = 0.01
"""While no list is mature, all are looked at so often: in waits for carts and purchases."""


class Session:
    """One learner, its lists, versions and counts.

    Parameters
    ----------
    settings, store
        As for the role.
    learner
        New; it is brought to `state` here.
    source
        Names the counts.
    partitions
        Of the examples.
    state
        What `state` returned earlier, or None to begin from nothing.

    Raises
    ------
    Retryable
        When the store cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        learner: Learner,
        source: str,
        partitions: list[int],
        state: Mapping[str, Any] | None,
    ) -> None:
        self.settings, self.shape, self.learner = settings.train, shape_of(settings), learner
        self.partitions = partitions
        self.buffer = Buffer(self.shape, self.settings.buffer_lists, self.settings.delayed)
        self.shadows = Shadows(learner, LAGS, self.settings.shadows)
        self.alike = Partitions(partitions)
        self.delays = Delays(self.settings.conversion_wait_s)
        self.counts = Counts(source, BLOCK)
        self.rng = np.random.default_rng(self.settings.seed)
        self.sales = Sales(self.buffer, self.delays, self.settings.delayed)
        self.time = StreamTime()
        self._passed: dict[int, int] = {}
        self._inbox: list[Batch] = []
        self._unlearned: dict[int, list[Label]] = {}
        self._label_ts = self._sent_ms = 0
        self._replays = REPLAYS
        self._next_publish = self._next_count = self._next_foresee = 0.0
        self._behind_since = np.inf
        if state is not None:
            self._restore(state)
        self.publisher = Publisher(
            settings, store, learner, self.buffer, self.counts, self.time, min(partitions),
            state and state["publisher"],
        )  # fmt: skip

    def process(self, records: Records, now: float) -> list[Output]:
        """Decode messages; they are taken in by the next `tick`."""
        return [output for part in split_blocks(records, BLOCK) for output in self._decode(part, now)]

    def tick(self, now: float) -> list[Output]:
        """What is due after each batch, also an empty one."""
        self._arrive(now)
        self._learn(now)
        outputs: list[Output] = []
        if now >= self._next_publish:
            self._next_publish = now + self.settings.publish_s
            self._replays = REPLAYS
            outputs += self.publisher.publish(now)
            self.shadows.turn(self.time.ms)  # the gate has just let it pass, or taken it back
        if now >= self._next_count:
            self._next_count = now + COUNT_S
            outputs += self._count()
        return outputs

    def gap(self, partition: int, count: int) -> None:
        """Count messages that expired before they were read."""
        measure.count_health(self.counts, partition, [(self.time.ms // 1000, "lost", "", count)])

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint; the model in it has passed the gate."""
        self.publisher.judge()
        labels = [(n, p, ts) for n, each in self._unlearned.items() for p, ts in each]
        return {
            "publisher": self.publisher.state(),
            "learner": self.learner.state(),
            "buffer": self.buffer.state(),
            "shadows": self.shadows.state(),
            "alike": self.alike.state(),
            "delays": self.delays.state(),
            "counts": {p: self.counts.state(p) for p in self.counts.partitions()},
            "passed": self._passed,
            "time": self.time.ms,
            "next": [self._next_publish, self._next_count, self._next_foresee, self._behind_since],
            "label_ts": self._label_ts,
            "sales": self.sales.state(),
            "replays": self._replays,
            "labels": np.array(labels, np.int64).reshape(-1, 3),
            "rng": json.dumps(self.rng.bit_generator.state),  # its integers are too long for MessagePack
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.learner.restore(state["learner"])
        self.buffer.restore(state["buffer"])
        self.shadows.restore(state["shadows"])
        self.alike.load_state(state["alike"])
        self.delays.restore(state["delays"])
        for p, counts in state["counts"].items():
            self.counts.restore(p, counts)
        self._passed = dict(state["passed"])
        self.time = StreamTime(state["time"])
        self._next_publish, self._next_count, self._next_foresee, self._behind_since = state["next"]
        self._label_ts, self._replays = state["label_ts"], state["replays"]
        self.sales.restore(state["sales"])
        for n, p, ts in state["labels"].tolist():
            self._unlearned.setdefault(n, []).append((p, ts))
        self.rng.bit_generator.state = json.loads(state["rng"])

    def _decode(self, records: Records, now: float) -> list[Output]:
        """Messages of one block of offsets into the inbox; returns dead letters.

        Each is counted in the second of its own timestamp: another cut of the same messages into
        batches, after a crash, must count the same.
        """
        p = records.partition
        self.counts.advance(p, records.offsets[-1])
        self._sent_ms = max(self._sent_ms, *records.timestamps)
        rows: list[tuple[int, str, str, int]] = []
        letters = []
        for i, (ms, value) in enumerate(zip(records.timestamps, records.values, strict=True)):
            second = ms // 1000
            rows.append((second, "consumed", "", 1))
            try:
                batch, self._passed[p] = decode(value, self.shape, p, self._passed.get(p, -1))
            except Poison as error:
                letters.append(dead_letter(records, i, str(error), measure.ROLE, now))
                rows.append((second, "dead", re.sub(r"\d+", "#", str(error)[:120]), 1))
                continue
            if p in self.alike.unlike:
                batch = batch._replace(acts=Acts(*(column[:0] for column in batch.acts)))
            self._inbox.append(batch)
            unseen = int(batch.shown.unseen.sum())
            rows.append((second, "lists", "", len(batch.shown) - unseen))
            rows.append((second, "unseen", "", unseen))
            rows.append((second, "labels", "", len(batch.labels.offset)))
            rows.append((second, "acts", "", len(batch.acts.item)))
        measure.count_health(self.counts, p, rows)
        return letters

    def _arrive(self, now: float) -> None:
        if not self._inbox:
            self.time.idle(now)
            return
        shown, labels, acts, names = merge(self._inbox)
        self._inbox = []
        self.publisher.arrived(len(shown) + len(acts.item))
        seen = int(max(shown.broker_ts.max(initial=0), labels.broker_ts.max(initial=0)))
        # where no lists are shown, nothing but the messages themselves says what time it is
        self.time.saw(seen if self.buffer.head or seen else self._sent_ms)
        newest = int(max(shown.ts.max(initial=0), acts.ts.max(initial=0)))
        ids = [shown.lists.item, acts.item]
        if self.learner.admission.roomy:  # then an act earns a row by itself: pairs count between rows alone
            ids.append(acts.item)
        self.learner.see(np.concatenate(ids), names, newest)
        if len(shown):
            self.shadows.predict(shown, self.buffer.head, self.publisher.versions.shadow)
            guess, lately = self._predict(shown.lists), self.learner.trainer.lately
            self.buffer.append(shown, guess, self.time.ms, lately)
            self.learner.observe(shown.lists.features)
            self._count_lists(shown)
        if len(labels.offset):
            self._join(labels)
        if len(acts.item):
            self.learner.count_acts(*acts)

    def _count_lists(self, shown: Shown) -> None:
        size = np.diff(shown.lists.start)
        real = np.repeat(~shown.unseen & ~self.alike.out(shown.partition), size)
        ts, context = np.repeat(shown.ts, size), np.repeat(shown.context, size, axis=0)
        lists = shown.lists
        self.learner.count_lists(lists.item[real], lists.category[real], ts[real], context[real])

    def _predict(self, lists: Lists) -> Guess:
        """What the model says before it has learned anything of these lists."""
        parts = [np.arange(a, min(a + TOGETHER, len(lists))) for a in range(0, len(lists), TOGETHER)]
        guesses = [self.learner.predict(select(lists, part)) for part in parts]
        return Guess(np.concatenate([g.score for g in guesses]), np.concatenate([g.p for g in guesses]))

    def _join(self, labels: Labels) -> None:
        number, new = self.buffer.label(labels)
        for counter, rows in (("unjoined", number < 0), ("repeated", (number >= 0) & ~new)):
            measure.count_each(self.counts, counter, labels.partition[rows], labels.broker_ts[rows])
        if not self.delays.over(self.time.ms):
            late = labels.broker_ts[new] - self.buffer.column("broker_ts", number[new])
            self.delays.heard(labels.task[new], late)
        columns = number[new], labels.partition[new], labels.broker_ts[new]
        for n, p, ts in zip(*(column.tolist() for column in columns), strict=True):
            self._unlearned.setdefault(n, []).append((p, ts))
        self._label_ts = max(self._label_ts, int(labels.ts[new].max(initial=0)))

    def _learn(self, now: float) -> None:
        """Full batches at once; when the next version is due all that is ready, in batches of one size.

        In a small batch each list weighs more: were the last one just what is left over, and late labels
        always in the first, then fake negatives would outweigh the sales that make up for them.

        After each batch come batches of the past, each a step of its own: five steps of 32 lists take as
        long as one of 160, and teach a young model far more. Who is behind leaves the past alone, and so does
        a policy by which no dense weight learns now: the past teaches no others. While there is no past yet,
        such a step goes on in the direction of those before it: a model learns faster in its first seconds.
        """
        self.buffer.wait(self.time.ms - int(self.settings.click_wait_s * 1000))
        size = full = self.settings.lists_per_batch
        behind = now - self._behind_since > BEHIND_S
        size *= LARGER if behind else 1
        due, steps = now >= self._next_publish, 0
        while (waiting := self.buffer.waiting) >= (1 if due else full) and steps < STEPS:
            self._step(self.buffer.take(even(waiting, size) if due else size))
            resting = behind or self.learner.trainer.rests
            replayed = 0 if resting else min(self.settings.replay, self._replays)
            for _ in range(replayed):
                past = self.buffer.replay(size, self.rng)
                self.learner.learn(self.buffer.gather(past), lesson=self.buffer.review(past), again=True)
            self._replays -= replayed
            steps += LARGER if behind else 1 + replayed
        self._behind_since = np.inf if self.buffer.waiting < full else min(self._behind_since, now)

    def _step(self, numbers: Array) -> None:
        numbers, lists = self._sift(numbers)
        if not len(numbers):  # they waited so long that newer lists took their place, or are set aside
            return
        lesson, news = self.buffer.teach(numbers)
        if not self.delays.over(self.time.ms):
            lesson = self._thin(lesson, numbers, np.diff(lists.start))
        loss = self.learner.learn(lists, lesson=lesson)
        labels = [label for n in numbers.tolist() for label in self._unlearned.pop(n, [])]
        if np.isfinite(loss):
            if self.learner.trainer.policy.broken:  # what was before teaches what is so no longer
                self.buffer.pass_over(int(np.median(numbers)) - BEFORE * len(numbers))
            self._follow(numbers, lists, lesson, news)
            through = max(self._label_ts, int(self.buffer.column("ts", numbers).max(initial=0)))
            self.publisher.learned(numbers, through, labels)
        else:
            self.publisher.set_aside(numbers, {"reason": "loss not finite"})

    def _thin(self, lesson: Lesson, numbers: Array, sizes: Array) -> Lesson:
        """`Delays.thin`, which counts in any case: settings may change."""
        shown = self.buffer.column("broker_ts", numbers)
        thinned = self.delays.thin(lesson, np.repeat(numbers, sizes), np.repeat(shown, sizes), self.time.ms)
        return thinned if self.settings.delayed in FAKE else lesson

    def _follow(self, numbers: Array, lists: Lists, lesson: Lesson, news: Array) -> None:
        """Let the levels follow what has come, and what was expected of lists whose wait for clicks ends now.

        Also who waits to teach carts knows early how many there are.
        """
        size, task = np.diff(lists.start), np.arange(len(TASKS))
        then = np.repeat(self.buffer.column("lately", numbers), size, axis=0)
        due = ((lesson.positive | lesson.negative) & CLICK).astype(np.int64)[:, None]
        came = (news[:, None] >> task & 1).sum(0)
        said = self.buffer.guesses(numbers).p
        self.sales.expect((due * said * np.exp(-then)).sum(0))
        self.learner.trainer.follow(said, then, due, came, self.sales.sold(self.time.ms), self.sales.expected)

    def _sift(self, numbers: Array) -> tuple[Array, Lists]:
        """The lists to learn from; those of a partition unlike the others are set aside."""
        lists = self.buffer.gather(numbers)
        out = self.alike.sift(self.buffer, numbers, lists)
        if not out.any():
            return numbers, lists
        self.buffer.set_aside(numbers[out])
        where, ts = (self.buffer.column(name, numbers[out]) for name in ("partition", "broker_ts"))
        measure.count_each(self.counts, "aside", where, ts)
        for n in numbers[out].tolist():
            self._unlearned.pop(n, None)
        return numbers[~out], select(lists, np.flatnonzero(~out))

    def _count(self) -> list[Output]:
        """Judge the lists whose time has come, and publish what was counted."""
        self._judge(self.settings.evaluate_after_s, self.buffer.judge, CLICK)
        self._judge(self.settings.conversion_wait_s, self._mature, CONVERSIONS)
        if self.delays.young(self.time.ms) and self.time.ms >= self._next_foresee:
            self._next_foresee = self.time.ms + int(1000 * FORESEE * self.settings.conversion_wait_s)
            self.sales.foresee(self.time.ms)
        self._unlearned = {n: each for n, each in self._unlearned.items() if n >= self.buffer.tail}
        self.shadows.forget(self.buffer.judged)
        gauges = {
            "buffer": len(self.buffer),
            "waiting": self.buffer.waiting,
            "missed": self.buffer.missed,
            "immature": self.buffer.immature,
            "rows": len(self.learner.table),
            "dense": self.learner.trainer.share,
        }
        measure.read_gauges(self.counts, min(self.partitions), self.time.ms // 1000, gauges)
        return [
            Output("outcomes", f"{measure.ROLE}/{p}".encode(), encode_binary(outcomes))
            for p in self.counts.partitions()
            for outcomes in self.counts.take(p)
        ]

    def _mature(self, until: int) -> Array:
        """`Buffer.mature`; what was bought of these lists is known now."""
        numbers = self.buffer.mature(until)
        self.sales.mature(numbers)
        return numbers

    def _judge(self, after_s: float, judge: Callable[[int], Array], tasks: int) -> None:
        """Judge `tasks` (bits) of the lists that arrived so long ago."""
        due = self.time.ms - int(after_s * 1000)
        while len(numbers := judge(due)):
            newest = self.buffer.guesses(numbers)
            measure.count_quality(self.counts, self.buffer, numbers, tasks, NEWEST, newest)
            for lag, said in self.shadows.said(numbers).items():
                measure.count_quality(self.counts, self.buffer, said.number, tasks, lag, said.guess)
            if len(numbers) < AT_ONCE:
                break


def even(waiting: int, size: int) -> int:
    """How many of those that wait to take at once, so that batches of at most `size` have one size.

    >>> even(65, 32), even(22, 32)
    (22, 22)
    """
    return -(-waiting // -(-waiting // size))
