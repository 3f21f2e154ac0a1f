"""data_pipeline.splits and .duplicates: quotas, independence of order, stability, near hashes."""

import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawtune.data_pipeline.splitting import near_hashes
from pawtune.data_pipeline.splitting.near_hashes import NEAR_DISTANCE, connect_near
from pawtune.data_pipeline.splitting.splits import (
    TEST_OF_VALIDATION,
    WHOLE_SHARES,
    Member,
    deal,
    quota,
)

MEMBERS = st.lists(
    st.builds(Member, st.sampled_from("abc"), st.sampled_from([str(n) for n in range(40)])),
    max_size=80,
)


def singles(count: int, label: str = "a", start: int = 0) -> list[Member]:
    return [Member(label, f"{label}{number}") for number in range(start, start + count)]


def counts(members: list[Member], splits: dict[str, str]) -> Counter[tuple[str, str]]:
    return Counter((splits[member.group], member.label) for member in members)


def test_golden_order() -> None:
    """Computed by hand: sha256 of "0:a0" .. "0:a5" begin e9, 2f, b6, d7, 01, d9."""
    members = singles(6)
    by_hand = sorted(
        zip(["e9", "2f", "b6", "d7", "01", "d9"], (member.group for member in members), strict=True)
    )
    splits = deal(members, WHOLE_SHARES, "train", 0)
    assert [splits[group] for _, group in by_hand] == ["test", "validation", *["train"] * 4]


def test_quotas_by_hand() -> None:
    share = Fraction(15, 100)
    sizes = {1: 1, 3: 1, 9: 1, 10: 2, 16: 2, 17: 3, 1000: 150}
    assert {size: quota(share, size) for size in sizes} == sizes


def test_counts_are_exact_per_class_without_duplicates() -> None:
    members = singles(1000, "a") + singles(200, "b") + singles(3, "c")
    found = counts(members, deal(members, WHOLE_SHARES, "train", 0))
    assert found == {
        ("train", "a"): 700, ("validation", "a"): 150, ("test", "a"): 150,
        ("train", "b"): 140, ("validation", "b"): 30, ("test", "b"): 30,
        ("train", "c"): 1, ("validation", "c"): 1, ("test", "c"): 1,
    }  # fmt: skip


@given(MEMBERS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_deal_is_independent_of_order_and_keeps_quotas(
    members: list[Member], seed: int, shuffler: random.Random
) -> None:
    splits = deal(members, WHOLE_SHARES, "train", seed)
    shuffled = list(members)
    shuffler.shuffle(shuffled)
    assert deal(shuffled, WHOLE_SHARES, "train", seed) == splits
    found = counts(members, splits)
    largest = max(Counter(member.group for member in members).values(), default=0)
    mixed = len({(m.group, m.label) for m in members}) > len({m.group for m in members})
    for label, size in Counter(member.label for member in members).items():
        for split, share in WHOLE_SHARES.items():
            assert found[split, label] <= quota(share, size)
            if split == "test" and not mixed:
                assert found[split, label] > quota(share, size) - largest


def test_another_seed_gives_another_deal() -> None:
    members = singles(100)
    assert deal(members, TEST_OF_VALIDATION, "validation", 0) != deal(
        members, TEST_OF_VALIDATION, "validation", 1
    )


def test_few_images_move_when_a_tenth_is_added() -> None:
    """What the module states: about 1 in 200; a wholly new deal would move nearly half."""
    moved = []
    for seed in range(20):
        old, added = singles(1000), singles(100, start=1000)
        before = deal(old, WHOLE_SHARES, "train", seed)
        after = deal(old + added, WHOLE_SHARES, "train", seed)
        moved.append(sum(after[group] != split for group, split in before.items()))
    assert np.mean(moved) <= 10
    assert max(moved) <= 30


def neighbours_by_force(hashes: list[int]) -> list[set[int]]:
    """Connected components, the slow and plain way."""
    components = [{number} for number in range(len(hashes))]
    for first, one in enumerate(hashes):
        for second, other in enumerate(hashes[:first]):
            if (one ^ other).bit_count() <= NEAR_DISTANCE:
                union = components[first] | components[second]
                for number in union:
                    components[number] = union
    return components


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8, unique=True), st.randoms())
def test_components_equal_brute_force(seeds: list[int], shuffler: random.Random) -> None:
    hashes = set(seeds)
    for seed in seeds:  # neighbours at 1 to 8 flipped bits, so that distance 6 is crossed
        value = seed
        for bit in shuffler.sample(range(64), 8):
            value ^= 1 << bit
            hashes.add(value)
    values = sorted(hashes)
    numbers = connect_near(np.array(values, np.uint64))
    expected = neighbours_by_force(values)
    for first, number in enumerate(numbers):
        assert {int(n) for n in np.flatnonzero(numbers == number)} == expected[first]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=120), st.integers(0, 2**64 - 1))
def test_long_runs_of_equal_keys_equal_brute_force(flips: list[int], centre: int) -> None:
    """Look-alike images: all hashes agree in most blocks."""
    hashes = [centre ^ (1 << flip % 64) ^ (1 << flip % 61) ^ (1 << flip % 7) for flip in flips]
    numbers = connect_near(np.array(hashes, np.uint64))
    expected = neighbours_by_force(hashes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_hashes, "LONG_RUN", 3)
        again = connect_near(np.array(hashes, np.uint64))
    for first, number in enumerate(numbers):
        assert {int(n) for n in np.flatnonzero(numbers == number)} == expected[first]
        assert {int(n) for n in np.flatnonzero(again == again[first])} == expected[first]
