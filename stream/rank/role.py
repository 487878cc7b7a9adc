"""The rank role: what it does with each batch of events, from bytes to slates."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.covisitation import scratch
from stream.checkpoint import Checkpoint, Store
from stream.counts import Counts, source_name, split_blocks
from stream.dead_letters import dead_letter
from stream.errors import Poison
from stream.grouping import Column
from stream.ids import Ids, Users
from stream.log import Output, Records
from stream.messages import Impression, decode_item, decode_model, encode_binary
from stream.rank import outcomes
from stream.rank.arms import Arms
from stream.rank.catalogue import Catalogue
from stream.rank.choices import count_choices
from stream.rank.decode import IMPRESSION, Columns, Decoded, decode
from stream.rank.examples import encode_examples
from stream.rank.feedback import take_events
from stream.rank.flood import MEMORY_MS, Capped, cap
from stream.rank.given import Given, Seen, blank, give, tell
from stream.rank.known import Limits
from stream.rank.models import Slot
from stream.rank.next_item import Pool
from stream.rank.publish import Publisher
from stream.rank.share import Share
from stream.rank.visitors import ENTRY, SHOWN, VISITOR
from stream.settings import Settings, shape_of

Array = NDArray[Any]

NOWHERE = -1
"""A partition that no topic has."""

OUTCOMES_S = 1.0
"""Counts are sent so often."""

INCREMENT_FROM = 20_000
"""Visitors from which on a checkpoint holds only those touched since the last whole one."""
WHOLE_AGAIN = 0.5
"""Share of touched visitors from which a whole checkpoint is cheaper."""


class Rank:
    """Implements `runner.Role`.

    Parameters
    ----------
    settings
        The whole tree.
    store
        Where model snapshots are.
    log_name
        `Log.identity` of the events: counts of another log are not these counts.
    """

    name = "rank"
    input = "events"
    broadcasts: tuple[str, ...] = ("items", "model")
    commits_each_batch = True

    def __init__(self, settings: Settings, store: Store, log_name: str = "") -> None:
        self.settings, self.store = settings, store
        self.shape = shape_of(settings)
        layout = VISITOR.descr, ENTRY.descr, SHOWN.descr
        self.schema = zlib.crc32(repr((self.shape.schema, layout)).encode())
        self.arms = Arms(settings)
        self.users = Users(settings.kafka.partitions, limit=500_000)
        self.items = Ids(limit=500_000)
        self.catalogue = Catalogue(settings.features.items, self.shape.categories)
        self.slots = {"fresh": Slot(self.shape), "frozen": Slot(self.shape)}
        self.shares: dict[int, Share] = {}
        self.counts = Counts(source_name(self.name, log_name))
        self.limits = Limits(
            session_gap=int(settings.features.session_gap_s * 1000),
            list_window=int(settings.features.list_window_s * 1000),
            exclude_bought=settings.slate.exclude_purchased,
            next_per_second=settings.features.next_per_second,
        )
        self.most = settings.features.events_per_s * MEMORY_MS / 1000
        self.scratch = scratch(self.shape.history, self.shape.neighbours)
        self.publisher = Publisher(settings, self.shape, self.arms, self.limits, self.scratch)
        candidates = settings.slate.candidates
        self._offered = np.zeros(candidates, np.uint64), np.zeros(candidates, np.uint8)
        self._next_outcomes = 0.0

    def prepare(self) -> None:
        """Compile the kernels, on a visitor of a partition that is none."""
        share = self.shares[NOWHERE] = Share(self.settings)
        events = (
            b'{"type":"impression","user_id":"u","ts":1000000000000,"items":["a","b"],"prices":[1,2]}',
            b'{"type":"click","user_id":"u","ts":1000000000000,"item_id":"a"}',
        )
        columns = self._decode(
            Records("events", NOWHERE, [0, 1], [10**12] * 2, [None] * 2, list(events)), share
        )[0]
        columns, rows, _ = self._cap(columns, share)
        given = self._given(columns, rows, share)
        self._take(columns, given, share)
        self.publisher.prepare(self.slots["fresh"], self.catalogue)
        del self.shares[NOWHERE]
        self.items.forget()
        self.items.fresh.clear()

    def units(self, partitions: list[int]) -> dict[str, list[int]]:
        """Each partition is a unit of its own, so that it can move alone."""
        return {f"rank-{p}": [p] for p in partitions}

    def restore(self, unit: str, partitions: list[int], checkpoints: list[Checkpoint]) -> None:
        """Start a partition from its checkpoint, or from nothing."""
        (partition,) = partitions
        share = self.shares[partition] = Share(self.settings)
        for checkpoint in checkpoints:
            share.visitors.load(checkpoint.state["visitors"])
        if checkpoints:
            newest = checkpoints[-1]
            share.newest_ts = newest.newest_ts
            share.recent.load(newest.state["recent"])
            share.surfaces = newest.state["surfaces"]
            self.counts.restore(partition, newest.state["counts"])

    def drop(self, unit: str) -> None:
        """Forget a partition."""
        partition = _partition(unit)
        self.shares.pop(partition, None)
        self.counts.drop(partition)

    def absorb(self, records: Records, now: float) -> list[Output]:
        """Take in catalogue entries and model updates."""
        if records.topic == "items":
            return self._absorb_items(records, now)
        return self._absorb_updates(records, now)

    def process(self, records: Records, now: float, quiet: bool) -> list[Output]:
        """Events into state, examples, counts and slates."""
        outputs: list[Output] = []
        for part in split_blocks(records):
            outputs += self._process(part, now, quiet)
        return outputs

    def tick(self, now: float) -> list[Output]:
        """Counts once a second, and the strangers' slate when it has changed."""
        if now < self._next_outcomes:
            return []
        self._next_outcomes = now + OUTCOMES_S
        self._read_gauges(int(now))
        for slot in self.slots.values():
            slot.group(self.catalogue, now)
        outputs = [
            Output("outcomes", b"rank/%d" % p, encode_binary(message))
            for p in self.counts.partitions()
            for message in self.counts.take(p)
        ]
        if 0 in self.shares:
            outputs += self.publisher.strangers(now, self.slots["fresh"], self.catalogue)
        return outputs

    def settled(self, now: float) -> None:
        """Count how long the slates just acknowledged took."""
        outcomes.count_slates(self.counts, self.publisher.take_published(), now)

    def state(self, unit: str, sequence: int) -> tuple[dict[str, Any], int, int]:
        """State of a partition: whole, or what has changed since the whole checkpoint `sequence`."""
        partition = _partition(unit)
        share = self.shares[partition]
        visitors = share.visitors
        touched = np.count_nonzero(visitors.touched)
        small = len(visitors) < INCREMENT_FROM or touched > WHOLE_AGAIN * len(visitors)
        whole = sequence < 0 or small
        state = {
            "visitors": visitors.state(only_touched=not whole),
            "recent": share.recent.state(),
            "surfaces": share.surfaces,
            "counts": self.counts.state(partition),
        }
        if whole:
            visitors.forget_touched()
        share.since_checkpoint = 0
        return state, share.newest_ts, -1 if whole else sequence

    def checkpoint_due(self, unit: str, now: float) -> bool:
        """Due after so many events, or seconds with any event."""
        share, limits = self.shares[_partition(unit)], self.settings.checkpoints
        if share.since_checkpoint == 0:
            share.checkpointed = now
            return False
        due = share.since_checkpoint >= limits.events or now - share.checkpointed >= limits.seconds
        if due:
            share.checkpointed = now
        return due

    def gap(self, partition: int, count: int) -> None:
        """Count events that expired before they were read, in the second of the newest one before them."""
        second = self.shares[partition].newest_ts // 1000
        self.counts.add(partition, "health", outcomes.health(second, "lost"), {"count": count})

    def _read_gauges(self, second: int) -> None:
        for partition, share in self.shares.items():
            gauges = ["catalogue", "visitors", "evicted"]
            dims: dict[str, Column] = {"second": second, "role": self.name, "gauge": gauges}
            visitors = share.visitors
            values = {"value": [len(self.catalogue), len(visitors), visitors.evicted]}
            self.counts.add(partition, "gauges", dims, values)

    def _absorb_items(self, records: Records, now: float) -> list[Output]:
        outputs = []
        for i, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
            try:
                if value is None:
                    self.catalogue.retire((key or b"").decode("utf-8", "replace"))
                else:
                    self.catalogue.put(decode_item(value), records.timestamps[i])
            except Poison as error:
                outputs.append(dead_letter(records, i, str(error), self.name, now))
        return outputs

    def _absorb_updates(self, records: Records, now: float) -> list[Output]:
        outputs, updates = [], []
        for i, value in enumerate(records.values):
            try:
                update = decode_model(value or b"")
                if update.slot not in self.slots:
                    raise Poison(f"slot {update.slot!r}: there are {', '.join(self.slots)}")
                updates.append(update)
            except Poison as error:
                outputs.append(dead_letter(records, i, str(error), self.name, now))
        whole = [k for k, update in enumerate(updates) if update.uri is not None and update.slot == "fresh"]
        for k, update in enumerate(updates):
            # a late start reads many snapshots at once: only the newest matters
            if update.slot != "fresh" or not whole or k >= whole[-1]:
                self.slots[update.slot].take(update, self.store)
        return outputs

    def _process(self, records: Records, now: float, quiet: bool) -> list[Output]:
        partition = records.partition
        share = self.shares[partition]
        decoded, dead, repeated = self._decode(records, share)
        columns, rows, capped = self._cap(decoded, share)
        self.counts.advance(partition, records.offsets[-1])
        misrouted = np.flatnonzero(columns.home != partition)
        outcomes.count_records(self.counts, records, columns, dead, repeated, misrouted, capped)
        outputs = [dead_letter(records, d.record, d.reason, self.name, now) for d in dead]
        share.since_checkpoint += len(records.offsets)
        if not columns.events:
            return outputs
        share.newest_ts = max(share.newest_ts, int(columns.ts.max()))
        given = self._given(columns, rows, share)
        seen = self._take(columns, given, share)
        outcomes.count_events(self.counts, partition, columns, given, seen, self.arms.names, share.surfaces)
        count_choices(self.counts, partition, columns, given, seen, self.arms.names)
        if quiet:
            return []
        outputs += encode_examples(self.shape.schema, records, columns, given, seen, self.items)
        outputs += self.publisher.slates(
            records, columns, given.event["visitor"], share.visitors.memory, self.slots, self.catalogue, now
        )
        return outputs

    def _decode(self, records: Records, share: Share) -> Decoded:
        max_ahead = int(self.settings.features.max_ahead_s * 1000)
        return decode(records, self.users, self.items, share.recent, max_ahead)

    def _cap(self, columns: Columns, share: Share) -> Capped:
        """Leave floods out."""
        rows = share.visitors.rows(columns.user)
        return cap(columns, rows, share.visitors.memory.visitor, self.most)

    def _take(self, columns: Columns, given: Given, share: Share) -> Seen:
        seen = blank(columns, self.shape.history)
        self._take_in(given, seen, share)
        return seen

    def _take_in(self, given: Given, seen: Seen, share: Share) -> None:
        """Take events in; `seen` has room for what is written."""
        fresh, catalogue = self.slots["fresh"], self.catalogue
        take_events(
            given,
            seen,
            share.visitors.memory,
            fresh.known,
            catalogue.known(),
            self.limits,
            self.scratch,
            Pool(fresh.trending, catalogue.newest(len(self._offered[0])), fresh.alike, *self._offered),
        )

    def _given(self, columns: Columns, rows: Array, share: Share) -> Given:
        given = give(columns, rows)
        given.event["arm"] = self.arms.of(columns.user)
        for i in np.flatnonzero(columns.kind == IMPRESSION).tolist():
            event = columns.events[i]
            assert isinstance(event, Impression)
            if event.trace is not None and (trace := self.arms.read(event.trace)) is not None:
                tell(trace, given, i)
            if event.surface:
                given.event["surface"][i] = share.surface(event.surface)
        return given


def _partition(unit: str) -> int:
    return int(unit.rpartition("-")[2])
