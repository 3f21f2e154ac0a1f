"""Hashes that are near each other, found in time that grows with their number.

Two 64-bit hashes at most 6 bits apart agree in at least 3 of 9 blocks of bits, whichever 6 bits
differ. So hashes are sorted by each of the 84 choices of 3 blocks (21 to 22 bits), and only those
that agree in one are compared: the same pairs as by comparing all with all, in 84 sorts.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR_DISTANCE = 6
NUM_BLOCKS = NEAR_DISTANCE + 3
# In a longer run of equal keys (look-alike images) members are taken out as they are connected.
LONG_RUN = 256

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]


def distances(hashes: Hashes, other: np.uint64) -> NDArray[np.uint8]:
    """Hamming distances in bits: (N,) uint8."""
    different: NDArray[np.uint8] = np.bitwise_count(hashes ^ other)
    return different


def connect_near(hashes: Hashes) -> Numbers:
    """Connected components of hashes at most NEAR_DISTANCE bits apart.

    Args:
        hashes: (N,) uint64.

    Returns:
        (N,) int64: the component of each.
    """
    components = np.arange(len(hashes), dtype=np.int64)
    for mask in _masks():
        keys = hashes & mask
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        lengths = np.diff(np.append(starts, len(keys)))
        first, second = _pairs_of_short_runs(hashes, order, starts, lengths)
        for start, length in zip(
            starts[lengths > LONG_RUN], lengths[lengths > LONG_RUN], strict=True
        ):
            run = order[start : start + length]
            if len(np.unique(components[run])) > 1:
                links = _links_of_long_run(hashes, run)
                first, second = np.append(first, links[0]), np.append(second, links[1])
        components = _joined(components, first, second)
    return components


def _masks() -> list[np.uint64]:
    edges = np.linspace(0, 64, NUM_BLOCKS + 1).astype(int)
    blocks = [
        (1 << int(high)) - (1 << int(low)) for low, high in zip(edges, edges[1:], strict=False)
    ]
    chosen = combinations(blocks, NUM_BLOCKS - NEAR_DISTANCE)
    return [np.uint64(sum(three)) for three in chosen]


def _pairs_of_short_runs(
    hashes: Hashes, order: Numbers, starts: Numbers, lengths: Numbers
) -> tuple[Numbers, Numbers]:
    """Near pairs within runs of equal keys, all runs at once, by how far apart they stand."""
    short = (lengths > 1) & (lengths <= LONG_RUN)
    starts, lengths = starts[short], lengths[short]
    # Of each member: its place in the order, and how many of its run follow it.
    place = np.repeat(starts, lengths) + _count_up(lengths)
    follow = np.repeat(lengths, lengths) - _count_up(lengths) - 1
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    step = 1
    while len(place):
        kept = follow >= step
        place, follow = place[kept], follow[kept]
        one, other = order[place], order[place + step]
        near = np.bitwise_count(hashes[one] ^ hashes[other]) <= NEAR_DISTANCE
        firsts.append(one[near])
        seconds.append(other[near])
        step += 1
    return np.concatenate(firsts), np.concatenate(seconds)


def _count_up(lengths: Numbers) -> Numbers:
    """0, 1, … up to each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _links_of_long_run(hashes: Hashes, run: Numbers) -> tuple[Numbers, Numbers]:
    """Links that connect what is near in a run; who is connected is not compared again."""
    firsts, seconds = [], []
    left = run
    while len(left):
        queue, left = [left[-1]], left[:-1]
        while queue and len(left):
            index = queue.pop()
            near = distances(hashes[left], hashes[index]) <= NEAR_DISTANCE
            if near.any():
                found = left[near]
                firsts.append(np.full(len(found), index))
                seconds.append(found)
                queue.extend(found)
                left = left[~near]
    nothing = [np.empty(0, np.int64)]
    return np.concatenate(firsts or nothing), np.concatenate(seconds or nothing)


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
