"""What an event says of its context: how long it holds, what it changes, and what train reads of it."""

from __future__ import annotations

from typing import Any

import pytest

from models.batch import CONTEXTS, FEATURE
from models.statistics import CLICKS_SHORT, IMPRESSIONS_SHORT, bucket_in
from stream.checkpoint import pack, unpack
from stream.ids import hash_id
from stream.messages import AnyEvent, Click, Impression, Item, Search
from stream.rank.decode import context_ids
from stream.train.join import Batch, decode
from tests.stream.rank.stage import Stage, T

HERE, THERE, NOWHERE = {"country": "de"}, {"country": "fr"}, [0] * CONTEXTS
HERE_ID, THERE_ID = context_ids(HERE), context_ids(THERE)


@pytest.fixture
def shop(stage: Stage) -> Stage:
    """Shoes are clicked by everybody who comes from here."""
    stage.items(Item(item_id="shoe", category="shoes"), Item(item_id="hat", category="hats"))
    known, shoes = stage.rank.slots["fresh"].known, int(stage.rank.catalogue.items["category"][0])
    bucket = bucket_in(HERE_ID[0], shoes, len(known.context_stats))
    known.context_stats[bucket, [IMPRESSIONS_SHORT, CLICKS_SHORT]] = 1000
    known.context_stats_at[bucket] = T
    return stage


def _taught(stage: Stage, *events: AnyEvent) -> Batch:
    (output,) = [o for o in stage.feed(*events) if o.topic == "examples"]
    return decode(output.value, stage.rank.shape, 0)[0]


def _shown(user: str = "u", **fields: Any) -> Impression:
    return Impression(user_id=user, ts=T, items=["shoe", "hat", "sock"], **fields)


def _click(user: str = "u", item: str = "hat", **fields: Any) -> Click:
    return Click(user_id=user, ts=T + 1000, item_id=item, **fields)


def _is_here(stage: Stage, user: str = "u", **fields: Any) -> bool:
    """Whether a list is shown to somebody for whom shoes are what they are here; the rest never differs."""
    rate = _taught(stage, _shown(user, **fields)).shown.lists.features[:, FEATURE["category_ctr"]]
    assert rate[1] == rate[2] == stage.rank.slots["fresh"].known.prior[0]
    assert rate[0] == pytest.approx(rate[1]) or rate[0] > 0.9
    return bool(rate[0] > 0.9)


def test_the_first_list_is_of_the_context_that_it_tells(shop: Stage) -> None:
    assert _is_here(shop, context=HERE)
    assert not _is_here(shop, "v", context=THERE)
    assert not _is_here(shop, "w")


def test_a_context_holds_until_another_is_told(shop: Stage) -> None:
    shop.feed(Search(user_id="u", ts=T, query="x", context=HERE))
    assert _is_here(shop)
    shop.feed(_click(), _click(context={}))
    assert _is_here(shop)
    shop.feed(_click(context=THERE))
    assert not _is_here(shop)


def test_a_context_outlives_a_restart(shop: Stage) -> None:
    shop.feed(_shown(context=HERE))
    kept = unpack(pack(shop.share.visitors.state(only_touched=False)))
    shop.rank.restore("rank-0", [0], [])
    assert not _is_here(shop)
    shop.share.visitors.load(kept)
    assert _is_here(shop)


def test_train_reads_the_context_of_lists_and_acts(shop: Stage) -> None:
    batch = _taught(shop, _shown(context=HERE), _click(), _shown("v"), _click("v", context=THERE))
    assert batch.shown.context.tolist() == [HERE_ID.tolist(), NOWHERE]
    assert batch.acts.context.tolist() == [HERE_ID.tolist(), THERE_ID.tolist()]


def test_a_list_made_of_an_act_has_the_context_of_the_act(shop: Stage) -> None:
    shop.feed(_click(item="shoe"))
    batch = _taught(shop, _click(context=HERE))
    assert batch.shown.unseen.tolist() == [True]
    assert batch.shown.context.tolist() == [HERE_ID.tolist()]


def test_a_context_is_no_part_of_the_history(shop: Stage) -> None:
    lists = _taught(shop, _shown(context=HERE)).shown.lists
    assert not lists.history.any()
    assert not lists.features[:, FEATURE["history_size"]].any()


def test_the_first_things_told_count(shop: Stage) -> None:
    many = dict.fromkeys("fedcba", "x")
    batch = _taught(shop, _shown(context=many))
    assert batch.shown.context.tolist() == [[hash_id(f"{key}=x") for key in "fedc"]]
