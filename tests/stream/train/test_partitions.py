import numpy as np
import pytest

from stream.checkpoint import pack, unpack
from stream.train.partitions import ENOUGH, MEMORY, Partitions

RNG = np.random.default_rng(0)


def feed(partitions: Partitions, lists: int, means: list[float], spread: float = 0.2) -> None:
    """So many lists of each partition, in turn."""
    where = np.tile(np.arange(len(means)), lists)
    partitions.learn(where, RNG.normal(np.tile(means, lists), spread))


@pytest.fixture
def four() -> Partitions:
    made = Partitions([0, 1, 2, 3])
    feed(made, 200, [0.4] * 4)
    return made


def test_partitions_alike_are_all_learned_from(four: Partitions) -> None:
    for _ in range(500):
        feed(four, 8, [0.4] * 4, spread=0.3)
        assert four.unlike == frozenset()


def test_one_that_is_worse_is_found_within_a_memory_and_forgiven_soon(four: Partitions) -> None:
    feed(four, MEMORY, [0.4, 0.4, 1.2, 0.4])
    assert four.unlike == {2}
    feed(four, 3 * MEMORY, [0.4] * 4)
    assert four.unlike == frozenset()


def test_half_of_them_may_be_worse(four: Partitions) -> None:
    feed(four, 3 * MEMORY, [1.2, 0.4, 1.2, 0.4])
    assert four.unlike == {0, 2}


def test_a_world_that_changes_changes_everywhere(four: Partitions) -> None:
    feed(four, 3 * MEMORY, [1.2] * 4)
    assert four.unlike == frozenset()


def test_one_that_is_better_is_not_unlike(four: Partitions) -> None:
    feed(four, 3 * MEMORY, [0.4, 0.1, 0.4, 0.4])
    assert four.unlike == frozenset()


def test_worse_within_the_noise_is_alike(four: Partitions) -> None:
    feed(four, 3 * MEMORY, [0.4, 0.65, 0.4, 0.4], spread=2.0)
    assert four.unlike == frozenset()


def test_kinds_of_lists_that_come_in_runs_are_alike() -> None:
    partitions = Partitions([0, 1, 2, 3])
    for p in np.tile(range(4), 5):
        for labelled, mean in ((True, 0.6), (False, 0.1)):
            partitions.learn(np.full(MEMORY, p), RNG.exponential(mean, MEMORY), np.full(MEMORY, labelled))
            assert partitions.unlike == frozenset()


def test_lists_of_one_kind_tell_one_that_is_worse_by_themselves(four: Partitions) -> None:
    where = np.tile(np.arange(4), MEMORY)
    four.learn(where, RNG.normal(np.where(where == 3, 0.6, 0.2), 0.1), np.ones(len(where), np.bool_))
    assert four.unlike == {3}


def test_however_skewed_losses_are_those_of_partitions_alike_are_alike_at_every_look(
    four: Partitions,
) -> None:
    for _ in range(2000):
        loss = RNG.lognormal(-2.0, 1.5, 32)
        four.learn(RNG.integers(0, 4, 32), loss)
        assert four.unlike == frozenset()


def test_a_few_lists_cannot_speak_for_a_partition_however_bad_they_are(four: Partitions) -> None:
    for _ in range(20):
        four.learn(np.full(10, 2), np.full(10, 1e3))
        assert four.unlike == frozenset()
        feed(four, 90, [0.4] * 4)
        assert four.unlike == frozenset()


def test_few_lists_say_nothing() -> None:
    partitions = Partitions([0, 1])
    feed(partitions, int(ENOUGH) - 1, [0.4, 4.0])
    assert partitions.unlike == frozenset()
    feed(partitions, 2, [0.4, 4.0])
    assert partitions.unlike == {1}


def test_one_partition_has_nothing_to_be_compared_with() -> None:
    alone = Partitions([3])
    alone.learn(np.full(500, 3), np.full(500, 9.0))
    assert alone.unlike == frozenset()


def test_losses_that_are_not_numbers_say_nothing(four: Partitions) -> None:
    four.learn(np.full(300, 1), np.full(300, np.nan))
    assert four.unlike == frozenset()


def test_goes_on_from_its_state_with_the_partitions_that_are_left(four: Partitions) -> None:
    feed(four, MEMORY, [0.4, 0.4, 1.2, 0.4])
    other = Partitions([0, 2, 7])
    other.load_state(unpack(pack(four.state())))
    assert other.unlike == {2}
