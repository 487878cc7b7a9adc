"""Slots: what is served, and copies of it."""

from __future__ import annotations

import pytest

from stream.rank.models import Slot
from stream.settings import shape_of
from tests.stream.rank.stage import SMALL


def test_a_slot_without_a_model_has_nothing_to_copy() -> None:
    with pytest.raises(ValueError, match="no model"):
        Slot(shape_of(SMALL)).copy()
