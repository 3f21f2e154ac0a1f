"""data_pipeline.splits and .duplicates: quotas, independence of order, stability, near hashes."""

import hashlib
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pawtune.data_pipeline.splitting import duplicates, near_hashes
from pawtune.data_pipeline.splitting.duplicates import group_near
from pawtune.data_pipeline.splitting.image_hashes import Facts, perceptual_hash
from pawtune.data_pipeline.splitting.near_hashes import NEAR_DISTANCE, connect_near
from pawtune.data_pipeline.splitting.splits import (
    TEST_OF_VALIDATION,
    WHOLE_SHARES,
    Member,
    deal,
    quota,
)
from tests.image_files import write_image

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
    numbers = connect_near(np.array(values, np.uint64)).components
    expected = neighbours_by_force(values)
    for first, number in enumerate(numbers):
        assert {int(n) for n in np.flatnonzero(numbers == number)} == expected[first]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=120), st.integers(0, 2**64 - 1))
def test_long_runs_of_equal_keys_equal_brute_force(flips: list[int], centre: int) -> None:
    """Look-alike images: all hashes agree in most blocks."""
    hashes = [centre ^ (1 << flip % 64) ^ (1 << flip % 61) ^ (1 << flip % 7) for flip in flips]
    numbers = connect_near(np.array(hashes, np.uint64)).components
    expected = neighbours_by_force(hashes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_hashes, "LONG_RUN", 3)
        again = connect_near(np.array(hashes, np.uint64)).components
    for first, number in enumerate(numbers):
        assert {int(n) for n in np.flatnonzero(numbers == number)} == expected[first]
        assert {int(n) for n in np.flatnonzero(again == again[first])} == expected[first]


def biased(count: int, chance: float) -> NDArray[np.uint64]:
    """Hashes whose bits are set with one chance, as those of films of one kind are."""
    bits = np.random.default_rng(0).random((count, 64)) < chance
    return np.unique(np.packbits(bits, axis=1).view(np.uint64).ravel())


def test_hashes_that_are_all_alike_are_not_compared_all_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes, compared = biased(12_000, 0.9), 0
    plain = near_hashes.distances

    def counted(values: NDArray[np.uint64], other: np.uint64) -> NDArray[np.uint8]:
        nonlocal compared
        compared += len(values)
        return plain(values, other)

    monkeypatch.setattr(near_hashes, "distances", counted)
    found = connect_near(hashes)
    assert compared < 200 * len(hashes)
    # The one great component is there all the same.
    largest = np.bincount(found.components).argmax()
    assert (found.components == largest).mean() > 0.5


def test_bits_that_are_nearly_always_the_same_are_dealt_out_to_all_blocks() -> None:
    hashes = biased(4_000, 0.5) | np.uint64(0xFFFFFFFF)
    for distance in (6, 3):
        for mask in near_hashes._masks(hashes, distance):
            telling = int(mask) >> 32
            assert telling.bit_count() >= 3 * (9 - distance)


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=60, unique=True))
def test_crowded_hashes_are_linked_within_fewer_bits_and_never_beyond(values: list[int]) -> None:
    hashes = np.array(values, np.uint64)
    whole = connect_near(hashes).components
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_hashes, "LONG_RUN", 2)
        patch.setattr(near_hashes, "MOST_PASSES", 1)
        hurried = connect_near(hashes)
    for number in np.unique(hurried.components):  # a part of a component, never of two
        assert len(np.unique(whole[hurried.components == number])) == 1
    if not hurried.crowded.any():
        assert len(np.unique(hurried.components)) == len(np.unique(whole))


def test_a_chain_of_thousands_is_split_by_nearer_hashes_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Films of one kind: each hash is near the next, and two pictures are copies."""
    monkeypatch.setattr(duplicates, "MOST_COMPARED", 5)
    facts = {}
    for number in range(9):
        write_image(tmp_path / f"{number}.png", number)
        sha = hashlib.sha256(str(number).encode()).hexdigest()
        facts[f"{number}.png"] = Facts(sha, f"{(1 << 4 * number) - 1:016x}", 32, 32)
    write_image(tmp_path / "copy.png", 4)  # one bit from its original
    facts["copy.png"] = Facts("f" * 64, f"{(1 << 16) | ((1 << 16) - 1):016x}", 32, 32)
    cache = tmp_path / "cache"
    for _ in ("compared", "from the cache"):
        groups, warning = group_near(tmp_path, facts, cache=cache)
        assert groups["copy.png"] == groups["4.png"]
        assert len(set(groups.values())) == 9
        assert warning is not None
        assert warning.startswith("10 of 10 different images have hashes near those of thousands")
    monkeypatch.undo()
    assert group_near(tmp_path, facts)[1] is None


def test_perceptual_hashes_are_those_of_imagehash() -> None:
    """As `imagehash.phash` 4.3 gives them, of images that it would not average down first."""
    gradient = Image.radial_gradient("L")
    assert perceptual_hash(Image.new("RGB", (40, 40), "white")) == "8000000000000000"
    assert perceptual_hash(gradient.resize((100, 70))) == "ee999967e6889861"
    assert perceptual_hash(gradient.crop((20, 60, 120, 200))) == "ff54aaa29555ac28"
