"""Hashes that are near each other, found in time that grows with their number.

Two 64-bit hashes at most 6 bits apart agree in at least 3 of 9 blocks of bits, whichever 6 bits
differ. So hashes are sorted by each of the 84 choices of 3 blocks (21 to 22 bits), and only those
that agree in one are compared: the same pairs as by comparing all with all, in 84 sorts. Bits that
are nearly always the same tell little: they are spread evenly over the blocks.

Where thousands agree in 3 blocks and are no copies of each other, as films of one kind do, each is
compared with a few hundred others, and those that are left with nothing near once more, by 4 blocks
and within 5 bits, and so on: a million take 10 to 90 s of a core, whatever their bits are.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR_DISTANCE = 6
NUM_BLOCKS = NEAR_DISTANCE + 3
# In a longer run of equal keys (look-alike images) members are taken out as they are connected.
LONG_RUN = 128
MOST_PASSES = 256  # through a long run: what is still alone after them is compared more narrowly

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


def distances(hashes: Hashes, other: np.uint64) -> NDArray[np.uint8]:
    """Hamming distances in bits: (N,) uint8."""
    different: NDArray[np.uint8] = np.bitwise_count(hashes ^ other)
    return different


class NearHashes(NamedTuple):
    """What `connect_near` found.

    Attributes:
        components: (N,) int64: the component of each hash.
        crowded: (N,) bool: those compared within fewer bits, to save time.
    """

    components: Numbers
    crowded: NDArray[np.bool_]


def connect_near(hashes: Hashes, distance: int = NEAR_DISTANCE) -> NearHashes:
    """Connected components of hashes that are near each other.

    Args:
        hashes: (N,) uint64.
        distance: largest number of bits in which neighbours differ, 0 to NEAR_DISTANCE.
    """
    components = np.arange(len(hashes), dtype=np.int64)
    if not len(hashes):
        return NearHashes(components, np.zeros(0, bool))
    crowded = np.zeros(len(hashes), bool)
    for mask in _masks(hashes, distance):
        keys = hashes & mask
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        lengths = np.diff(np.append(starts, len(keys)))
        own = components[order]
        is_open = np.minimum.reduceat(own, starts) < np.maximum.reduceat(own, starts)
        starts, lengths = starts[is_open], lengths[is_open]
        for first, second in _pairs_of_short_runs(hashes, order, starts, lengths, distance):
            components = _joined(components, first, second)
        links = [(order[:0], order[:0])]
        is_long = lengths > LONG_RUN
        for start, length in zip(starts[is_long], lengths[is_long], strict=True):
            run = order[start : start + length]
            outside = _outside_of_largest(components[run])
            if len(outside) <= MOST_PASSES:
                links.append(_links_of_few(hashes, run, outside, distance))
            else:
                *found, left = _links_of_long_run(hashes, run, distance)
                links.append((found[0], found[1]))
                crowded[left] = True
        first, second = (np.concatenate(ends) for ends in zip(*links, strict=True))
        components = _joined(components, first, second)
    if crowded.any() and distance > 0:
        places = np.flatnonzero(crowded)
        closer = connect_near(hashes[places], distance - 1).components
        _, firsts = np.unique(closer, return_index=True)
        components = _joined(components, places, places[firsts[_ranks(closer)]])
    return NearHashes(components, crowded)


def _ranks(values: Numbers) -> Numbers:
    """Each value's place among the distinct ones."""
    return np.unique(values, return_inverse=True)[1]


def _masks(hashes: Hashes, distance: int) -> list[np.uint64]:
    """All choices of blocks that two hashes so far apart agree in at least one of."""
    bits = np.arange(64, dtype=np.uint64)
    means = [float((hashes >> bit & np.uint64(1)).mean()) for bit in bits]
    # The most telling bits first, dealt out to the blocks to and fro.
    ordered = sorted(bits.tolist(), key=lambda bit: (abs(means[bit] - 0.5), bit))
    blocks = [0] * NUM_BLOCKS
    for place, bit in enumerate(ordered):
        turn, block = divmod(place, NUM_BLOCKS)
        blocks[block if turn % 2 == 0 else NUM_BLOCKS - 1 - block] |= 1 << bit
    chosen = combinations(blocks, NUM_BLOCKS - distance)
    return [np.uint64(sum(some)) for some in chosen]


def _pairs_of_short_runs(
    hashes: Hashes, order: Numbers, starts: Numbers, lengths: Numbers, distance: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Near pairs within runs of equal keys, all runs at once, by their offset in the run.

    Yields:
        First and second ends, a few for each hash at most: of look-alikes there may be billions.
    """
    short = (lengths > 1) & (lengths <= LONG_RUN)
    starts, lengths = starts[short], lengths[short]
    # Of each member: its place in the order, and how many of its run follow it.
    place = np.repeat(starts, lengths) + _count_up(lengths)
    follow = np.repeat(lengths, lengths) - _count_up(lengths) - 1
    firsts, seconds, waiting = [order[:0]], [order[:0]], 0
    step = 1
    while len(place):
        kept = follow >= step
        place, follow = place[kept], follow[kept]
        one, other = order[place], order[place + step]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
        firsts.append(one[near])
        seconds.append(other[near])
        waiting += len(firsts[-1])
        if waiting > len(hashes):
            yield np.concatenate(firsts), np.concatenate(seconds)
            firsts, seconds, waiting = [order[:0]], [order[:0]], 0
        step += 1
    yield np.concatenate(firsts), np.concatenate(seconds)


def _count_up(lengths: Numbers) -> Numbers:
    """0, 1, … up to each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _outside_of_largest(components: Numbers) -> Numbers:
    """Indices of the members outside the largest component."""
    values, counts = np.unique(components, return_counts=True)
    return np.flatnonzero(components != values[counts.argmax()])


def _links_of_few(
    hashes: Hashes, run: Numbers, places: Numbers, distance: int
) -> tuple[Numbers, Numbers]:
    """Links of some members of a run; the others are connected already."""
    values = hashes[run]
    found = [run[distances(values, values[place]) <= distance] for place in places]
    firsts = [np.full(len(near), run[place]) for place, near in zip(places, found, strict=True)]
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *firsts]), np.concatenate([nothing, *found])


def _links_of_long_run(
    hashes: Hashes, run: Numbers, distance: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Links that connect what is near in a run; who is connected is not compared again.

    Copies of each other take a few passes, however many they are.

    Returns:
        First and second ends of the links; and who was not reached within MOST_PASSES.
    """
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    left, values = run, hashes[run]
    queue: list[int] = []
    for _ in range(MOST_PASSES):
        if not len(left):
            break
        if queue:
            index = queue.pop()
        else:
            index, left, values = int(left[-1]), left[:-1], values[:-1]
        near = distances(values, hashes[index]) <= distance
        if near.any():
            found = left[near]
            firsts.append(np.full(len(found), index))
            seconds.append(found)
            queue.extend(found.tolist())
            left, values = left[~near], values[~near]
    return np.concatenate(firsts), np.concatenate(seconds), left


def _joined(components: Numbers, first: Numbers, second: Numbers) -> Numbers:
    """Components after these links have joined some."""
    one, other = components[first], components[second]
    new = one != other
    if not new.any():
        return components
    size = len(components)
    links = coo_array((np.ones(new.sum(), bool), (one[new], other[new])), shape=(size, size))
    joined: Numbers = connected_components(links, directed=False)[1].astype(np.int64)
    return joined[components]
