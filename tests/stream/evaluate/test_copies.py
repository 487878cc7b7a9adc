"""Copies of the model: when they are renewed, and that they stay as they are in between."""

import numpy as np
import pytest

from models.batch import F
from models.learner import Learner
from models.served import Served
from stream.evaluate.copies import Copy
from stream.rank.models import Slot
from stream.settings import shape_of
from tests.models import toy
from tests.stream.evaluate.streams import SMALL


@pytest.fixture(scope="module")
def learner():
    return Learner(shape_of(SMALL), seed=0, device="cpu")


def fresh_slot(learner):
    slot = Slot(learner.shape)
    slot.served = Served.load(learner.snapshot(), learner.shape)
    slot.epoch, slot.n = 1, 1
    slot._refresh(slot.served)
    return slot


def test_a_copy_is_the_fresh_one_until_its_moment(learner):
    copy, fresh = Copy(lambda now: None if now < 10 else 0), fresh_slot(learner)
    copy.follow(5, fresh)
    assert copy.slot is None
    copy.follow(10, fresh)
    assert copy.slot is not None
    assert copy.slot.version == fresh.version


def test_a_copy_does_not_change_with_the_fresh_one(learner):
    copy, fresh = Copy(lambda now: now // 10), fresh_slot(learner)
    copy.follow(10, fresh)
    rows = fresh.served.rows["bias"][: learner.shape.cold]
    before = rows.copy()
    rows += 1
    fresh.n = 2
    copy.follow(11, fresh)
    assert np.array_equal(copy.slot.served.rows["bias"][: len(rows)], before)
    assert copy.slot.n == 1
    copy.follow(20, fresh)
    assert np.array_equal(copy.slot.served.rows["bias"][: len(rows)], before + 1)
    assert copy.slot.n == 2


def test_nothing_is_copied_before_there_is_a_model(learner):
    copy = Copy(lambda now: 0)
    copy.follow(0, Slot(learner.shape))
    assert copy.slot is None


def test_a_copy_has_its_own_features_of_lists_once_and_else_those_they_have():
    lists = toy.lists(np.random.default_rng(0), 3, size=4)
    copy = Copy(lambda now: 0)
    copy.features = {11: np.zeros((4, F), np.float32)}
    its = copy.given(lists, np.array([10, 11, 12]))
    assert np.array_equal(its.features[4:8], np.zeros((4, F)))
    for same in (slice(0, 4), slice(8, 12)):
        assert np.array_equal(its.features[same], lists.features[same])
    assert np.array_equal(copy.given(lists, np.array([10, 11, 12])).features, lists.features)
