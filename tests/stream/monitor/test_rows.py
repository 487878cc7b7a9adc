import msgspec
import pytest

from stream.errors import Poison
from stream.messages import CUBES, Outcomes, encode_binary
from stream.monitor.rows import KINDS, decode, together

TRUTH = {"second": [9], "arm": ["a"], "impressions": [1], "expected": [0.5], "best": [1.0]}
FRESHNESS = {"second": [9], "kind": ["k"], "upto": [10.0], "count": [1]}


def outcomes(cube="truth", columns=TRUTH, **fields):
    named = {"source": "rank", "partition": 0, "block": 0, "version": 1} | fields
    return Outcomes(**named, cubes={cube: columns})


def test_valid_outcomes_pass_as_they_are():
    assert decode(encode_binary(outcomes())) == outcomes()


def test_whole_numbers_may_stand_for_reals():
    got = decode(encode_binary(outcomes(columns={**TRUTH, "best": [1]}))).cubes["truth"]["best"]
    assert got == [1.0]
    assert isinstance(got[0], float)


@pytest.mark.parametrize(
    ("cube", "columns", "reason"),
    [
        ("nope", TRUTH, "cube nope"),
        ("truth", {"second": [9]}, "has columns second instead of"),
        ("truth", {**TRUTH, "extra": [1]}, "has columns"),
        ("truth", {**TRUTH, "best": [1.0, 2.0]}, "different lengths"),
        ("truth", {**TRUTH, "impressions": [-1]}, "impressions"),
        ("truth", {**TRUTH, "impressions": [1.5]}, "impressions"),
        ("truth", {**TRUTH, "arm": [None]}, "arm"),
        ("truth", {**TRUTH, "arm": [b"a"]}, "arm"),
        ("truth", {**TRUTH, "second": [1 << 32]}, "second"),
        ("truth", {**TRUTH, "best": [float("nan")]}, "not finite"),
        ("truth", {**TRUTH, "expected": [float("inf")]}, "not finite"),
        ("freshness", {**FRESHNESS, "count": ["1"]}, "count"),
    ],
)
def test_value_that_no_column_holds_is_poison(cube, columns, reason):
    with pytest.raises(Poison, match=reason):
        decode(encode_binary(outcomes(cube, columns)))


def test_last_latency_bin_may_be_open():
    assert decode(encode_binary(outcomes("freshness", {**FRESHNESS, "upto": [float("inf")]})))


@pytest.mark.parametrize("field", ["partition", "block", "version"])
def test_number_of_a_row_that_does_not_fit_is_poison(field):
    with pytest.raises(Poison, match=field):
        decode(encode_binary(outcomes(**{field: 1 << 63})))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "truncated"),
        (b"", "truncated"),
        (b"\xff\xfe", "Expected `array`, got `int`"),
        (encode_binary({"a": 1}), "Expected `array`, got `object`"),
        (encode_binary(["rank", 1]), "Expected `array` of at least length 5, got 2"),
    ],
)
def test_what_is_not_outcomes_is_poison(value, reason):
    with pytest.raises(Poison, match=reason):
        decode(value)


def test_every_type_of_every_cube_is_known():
    kinds = {kind for cube in CUBES.values() for kind in {**cube.dims, **cube.sums}.values()}
    assert kinds <= set(KINDS)


def test_messages_together_keep_their_names():
    rows = together([outcomes(partition=1), outcomes("freshness", FRESHNESS), outcomes(version=7)])
    assert rows["truth"]["partition"] == [1, 0]
    assert rows["truth"]["version"] == [1, 7]
    assert rows["freshness"]["upto"] == [10.0]


def test_empty_cubes_are_left_out():
    empty = msgspec.structs.replace(outcomes(), cubes={"truth": {name: [] for name in TRUTH}})
    assert together([empty]) == {}
