"""Images that are the same, or nearly so, and belong on one side of every split.

Near duplicates have perceptual hashes (64-bit DCT hash, pHash: Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010) at a Hamming distance of at most 6, and
pixels that confirm it: the details of the two pictures, what is left of 64 x 64 grey values when
their surroundings are taken away, correlate by at least 0.5. The hash alone takes films of one
composition for copies of each other. Measured on 150 photos: copies at JPEG quality 30, at half
size or brightened 0.88 to 1.00, any two different photos up to 0.33; X-ray-like films up to 0.19,
re-encoded at quality 50 from 0.69.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_image, read_file
from pawtune.data_pipeline.progress import Progress, silent
from pawtune.data_pipeline.safe_files import shown, write_atomically
from pawtune.data_pipeline.splitting.folder_layout import Candidate, Reject
from pawtune.data_pipeline.splitting.image_hashes import CACHE_VERSION, MAX_THREADS, Facts
from pawtune.data_pipeline.splitting.near_hashes import NEAR_DISTANCE, connect_near, distances

LIKENESS = 0.5
DETAIL_SIDE = 64
FLAT = 0.1  # grey levels: pictures whose details are weaker have none
# Pictures of one chain of near hashes that are compared with each other: 4,000 take about 3 s.
MOST_COMPARED = 4_000
KEPT_FROM = 10_000  # images: grouping fewer by their hashes takes less than a second
# Where pixels, too, take a quarter of a set for one picture, grouping would leave no useful split.
COARSE_COUNT = 20
COARSE_SHARE = 0.25

Groups = dict[str, str]
"""The group of each path, named by the smallest content hash in it."""


def group_near(
    root: Path,
    facts: Mapping[str, Facts],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Groups, str | None]:
    """Groups images that are linked, directly or through others, as near or exact duplicates.

    Args:
        root: the folder that the paths are below.
        facts: hashes and size of each image.
        cache: where groups are kept between runs.
        progress: called with ("compare", images done, images in all).

    Returns:
        The groups; and a warning where only exact duplicates are grouped.
    """
    paths = {fact.sha256: path for path, fact in sorted(facts.items(), reverse=True)}
    store = None if cache is None else cache / "near" / f"{_key(paths, facts)}.json"
    known = None if store is None else _load(store)
    if known is None:
        chains, narrowed = _chains(paths, facts)
        linked = {}
        for shas in _confirmed(root, paths, facts, chains, progress or silent):
            linked.update(dict.fromkeys(shas, min(shas)))
        if store is not None and (chains or len(facts) >= KEPT_FROM):
            write_atomically(store, json.dumps({"groups": linked, "narrowed": narrowed}))
    else:
        linked, narrowed = known
    groups = {path: linked.get(fact.sha256, fact.sha256) for path, fact in facts.items()}
    exact = {path: fact.sha256 for path, fact in facts.items()}
    counts = Counter(linked.get(sha, sha) for sha in paths)
    largest = max(counts.values(), default=0)
    if largest <= max(COARSE_COUNT, COARSE_SHARE * len(paths)):
        return groups, _warning(narrowed, len(paths))
    return exact, (
        f"{largest} of {len(paths)} different images look alike in hash and pixels: only exact "
        "duplicates are kept together"
    )


def _key(paths: Mapping[str, str], facts: Mapping[str, Facts]) -> str:
    rows = [f"{sha} {facts[path].perceptual_hash}\n" for sha, path in sorted(paths.items())]
    settings = f"3 {CACHE_VERSION} {NEAR_DISTANCE} {LIKENESS} {MOST_COMPARED}\n"
    return hashlib.sha256((settings + "".join(rows)).encode()).hexdigest()[:32]


def _load(store: Path) -> tuple[Groups, int] | None:
    """What was kept; None where nothing was, or it cannot be read."""
    try:
        kept = json.loads(store.read_bytes())
        groups = {str(sha): str(group) for sha, group in kept["groups"].items()}
        return groups, int(kept["narrowed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _warning(narrowed: int, total: int) -> str | None:
    if not narrowed:
        return None
    return (
        f"{narrowed} of {total} different images have hashes near those of thousands of others, as "
        "films of one kind do, and were compared with the nearest alone: some near duplicates may "
        "be in two splits; if one patient or scene has several images, give the splits yourself"
    )


def _chains(paths: Mapping[str, str], facts: Mapping[str, Facts]) -> tuple[list[list[str]], int]:
    """Contents that are connected by near hashes, two or more each.

    Returns:
        The chains; and of how many contents the hash was near to too many others, so that they
        stand in the chain of those nearest to them.
    """
    shas = sorted(paths)
    hashes = np.array([int(facts[paths[sha]].perceptual_hash, 16) for sha in shas], np.uint64)
    distinct, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    components, narrowed = split_long_chains(distinct, counts, *connect_near(distinct))
    found = defaultdict(list)
    for sha, number in zip(shas, components[which].tolist(), strict=True):
        found[number].append(sha)
    chains = [chain for chain in found.values() if len(chain) > 1]
    return chains, int(counts[narrowed].sum())


def split_long_chains(
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    components: NDArray[np.int64],
    crowded: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Chains too long to compare all their pictures, connected again within fewer bits.

    Args:
        hashes: (N,) uint64, distinct.
        counts: (N,) pictures that have each.
        components: (N,) as `connect_near` found them.
        crowded: (N,) as well.

    Returns:
        (N,) the new components; (N,) bool: for whom fewer bits than NEAR_DISTANCE were allowed.
    """
    components, narrowed = components.copy(), crowded.copy()
    for distance in range(NEAR_DISTANCE - 1, -1, -1):
        _, ranks = np.unique(components, return_inverse=True)
        places = np.flatnonzero(np.bincount(ranks, counts)[ranks] > MOST_COMPARED)
        if not len(places):
            break
        narrowed[places] = True
        closer = connect_near(hashes[places], distance).components
        components[places] = components.max() + 1 + closer
    return components, narrowed


def _confirmed(
    root: Path,
    paths: Mapping[str, str],
    facts: Mapping[str, Facts],
    chains: Sequence[Sequence[str]],
    progress: Progress,
) -> Iterator[list[str]]:
    """The parts of each chain that pixels confirm, two or more contents each."""
    total, done = sum(len(chain) for chain in chains), 0
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        for chain in chains:
            progress("compare", done, total)
            done += len(chain)
            if len(chain) > MOST_COMPARED:
                continue  # thousands with one and the same hash
            found = [facts[paths[sha]] for sha in chain]
            files = [root / paths[sha] for sha in chain]
            details = np.stack([*threads.map(_details_of, files, [f.grey_bits for f in found])])
            hashes = np.array([int(fact.perceptual_hash, 16) for fact in found], np.uint64)
            numbers = connect_alike(hashes, details)
            for number in np.flatnonzero(np.bincount(numbers) > 1).tolist():
                yield [chain[index] for index in np.flatnonzero(numbers == number).tolist()]
    if total:
        progress("compare", total, total)


def connect_alike(hashes: NDArray[np.uint64], details: NDArray[np.float32]) -> NDArray[np.int32]:
    """Connected components of pictures that are near by hash and alike in their details.

    Args:
        hashes: (N,) uint64.
        details: (N, D) float32, as `details_of` gives them.

    Returns:
        (N,) int32: the component of each.
    """
    alike = details @ details.T >= LIKENESS
    for index, own in enumerate(hashes):
        alike[index] &= distances(hashes, own) <= NEAR_DISTANCE
    numbers: NDArray[np.int32] = connected_components(csr_array(alike), directed=False)[1]
    return numbers


def _details_of(path: Path, grey_bits: int) -> NDArray[np.float32]:
    try:
        return details_of(open_image(read_file(path), grey_bits))
    except DataError:  # it was read a moment ago; what is gone now resembles nothing
        return np.zeros(DETAIL_SIDE**2, np.float32)


def details_of(image: Image.Image) -> NDArray[np.float32]:
    """What a picture has beyond its soft shapes, with length 1: (4096,) float32.

    A picture without any is recognised by its grey value alone.
    """
    side = DETAIL_SIDE
    enlarge = min(image.size) < side
    how = Image.Resampling.BICUBIC if enlarge else Image.Resampling.BOX
    grey = np.asarray(image.convert("L").resize((side, side), how), np.float32)
    sums = np.pad(np.pad(grey, 2, mode="edge").cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    around = (sums[5:, 5:] - sums[:-5, 5:] - sums[5:, :-5] + sums[:-5, :-5]) / 25
    details: NDArray[np.float32] = (grey - around).ravel()
    details -= details.mean()
    length = float(np.linalg.norm(details))
    if length < FLAT * side:
        details[:] = 0
        details[int(grey.mean()) // 8] = 1
        return details
    details /= np.float32(length)
    return details


def reject_label_clashes(kept: Mapping[str, Candidate], facts: Mapping[str, Facts]) -> list[Reject]:
    """One content under two labels: nobody knows which label is right, so no copy is used."""
    rejects = []
    for paths in _copies(kept, facts):
        for path in paths:
            other = next((at for at in paths if kept[at].label != kept[path].label), None)
            if other is not None:
                rejects.append(Reject(path, f"same content under another label: {shown(other)}"))
    return rejects


def reject_crossings(
    kept: Mapping[str, Candidate], facts: Mapping[str, Facts], order: Sequence[str]
) -> list[Reject]:
    """Exact copies across given splits: they stay in the earliest, so that evaluation is honest."""
    rejects = []
    for paths in _copies(kept, facts):
        ranks = {path: order.index(kept[path].split or order[0]) for path in paths}
        first = min(paths, key=lambda path: (ranks[path], path))
        rejects += [
            Reject(path, f"duplicate of {shown(first)}, in another split")
            for path in paths
            if ranks[path] > ranks[first]
        ]
    return rejects


def _copies(kept: Mapping[str, Candidate], facts: Mapping[str, Facts]) -> Iterator[list[str]]:
    """Paths of one content each, where there are several."""
    copies = defaultdict(list)
    for path in sorted(kept):
        copies[facts[path].sha256].append(path)
    return (paths for paths in copies.values() if len(paths) > 1)
