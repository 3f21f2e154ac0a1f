"""Images that are the same, or nearly so, and must therefore share a split.

Near duplicates are told by a 64-bit DCT perceptual hash (pHash: Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010) at a Hamming distance of at most 6. On the
3,000 photos of cats_and_dogs one pair is that near, and no other nearer than 10.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_layout import SPLITS, Candidate, Reject
from pawtune.data_pipeline.splitting.image_hashes import Facts

NEAR_DISTANCE = 6
# Drawings, scans or icons may all look alike to the hash. One group of more than 20 images and a
# quarter of the set says so: it would leave no useful split.
COARSE_COUNT = 20
COARSE_SHARE = 0.25


def group_near(facts: Mapping[str, Facts]) -> tuple[dict[str, str], str | None]:
    """Groups images that are linked, directly or through others, by near or equal hashes.

    Returns:
        The group of each path, named by the smallest content hash in it; and a warning where the
        perceptual hash is too coarse for these images, so that only exact duplicates are grouped.
    """
    values = sorted({fact.perceptual_hash for fact in facts.values()})
    components = connect_near(np.array([int(value, 16) for value in values], np.uint64))
    component = dict(zip(values, components.tolist(), strict=True))
    first: dict[int, str] = {}
    for fact in facts.values():
        number = component[fact.perceptual_hash]
        first[number] = min(first.get(number, fact.sha256), fact.sha256)
    groups = {path: first[component[fact.perceptual_hash]] for path, fact in facts.items()}
    largest = max(Counter(groups.values()).values(), default=0)
    if largest <= max(COARSE_COUNT, COARSE_SHARE * len(facts)):
        return groups, None
    warning = (
        f"{largest} of {len(facts)} images look alike to the perceptual hash (distance <= "
        f"{NEAR_DISTANCE}): it is too coarse for them; only exact duplicates are kept together"
    )
    return {path: fact.sha256 for path, fact in facts.items()}, warning


def connect_near(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Connected components of hashes at most NEAR_DISTANCE bits apart.

    Compares each hash with all that are not yet in a component: n^2 / 2 comparisons in n numpy
    calls, 0.02 s for 3,000 and about 1 s for 25,000 hashes, with memory that grows with n only.

    Args:
        hashes: (N,) uint64, distinct.

    Returns:
        (N,) int64: the component of each.
    """
    components = np.empty(len(hashes), np.int64)
    left = np.arange(len(hashes))
    number = 0
    while len(left):
        queue, left = [left[-1]], left[:-1]
        while queue:
            index = queue.pop()
            components[index] = number
            near = distances(hashes[left], hashes[index]) <= NEAR_DISTANCE
            if near.any():
                queue.extend(left[near])
                left = left[~near]
        number += 1
    return components


def distances(hashes: NDArray[np.uint64], other: np.uint64) -> NDArray[np.uint8]:
    """Hamming distances in bits: (N,) uint8."""
    different: NDArray[np.uint8] = np.bitwise_count(hashes ^ other)
    return different


def reject_label_clashes(kept: Mapping[str, Candidate], facts: Mapping[str, Facts]) -> list[Reject]:
    """One content under two labels: which label is right cannot be told, so no copy is used."""
    copies = defaultdict(list)
    for path in sorted(kept):
        copies[facts[path].sha256].append(path)
    rejects = []
    for paths in copies.values():
        for path in paths:
            other = next((at for at in paths if kept[at].label != kept[path].label), None)
            if other is not None:
                rejects.append(Reject(path, f"same content under another label: {shown(other)}"))
    return rejects


def reject_crossings(
    kept: Mapping[str, Candidate], groups: Mapping[str, str], facts: Mapping[str, Facts]
) -> list[Reject]:
    """Duplicates across given splits: they stay in the earliest, so that evaluation is honest."""
    members: dict[str, list[str]] = defaultdict(list)
    for path in sorted(kept):
        if kept[path].split is not None:
            members[groups[path]].append(path)
    rejects = []
    for paths in members.values():
        order = {path: SPLITS.index(kept[path].split or "") for path in paths}
        earliest = [path for path in paths if order[path] == min(order.values())]
        hashes = np.array([int(facts[path].perceptual_hash, 16) for path in earliest], np.uint64)
        for path in paths:
            if path not in earliest:
                own = np.uint64(int(facts[path].perceptual_hash, 16))
                twin = earliest[int(np.argmin(distances(hashes, own)))]
                kind = "" if facts[path].sha256 == facts[twin].sha256 else "near "
                rejects.append(Reject(path, f"{kind}duplicate of {shown(twin)}, in another split"))
    return rejects
