from __future__ import annotations

import numpy as np
import pytest

from models.amounts import AMOUNTS, to_byte


def test_every_byte_is_the_one_that_comes_closest_to_what_it_means():
    assert [to_byte(float(amount)) for amount in AMOUNTS] == list(range(256))


def test_amounts_are_kept_to_a_few_percent():
    for amount in np.geomspace(0.1, 50_000, 1000):
        assert AMOUNTS[to_byte(amount)] == pytest.approx(amount, rel=0.04)


def test_what_is_more_never_has_a_smaller_byte():
    bytes_ = [to_byte(amount) for amount in np.geomspace(1e-9, 1e9, 1000)]
    assert bytes_ == sorted(bytes_)
    assert (bytes_[0], bytes_[-1]) == (0, 255)
