"""Content hash, perceptual hash and size of every image file, kept between runs.

Hashing decodes each image once in full (2 ms for a 500 x 375 photo), so that what is in the
manifest can be decoded later. Pillow and hashlib release the interpreter lock: threads are enough.

Perceptual hashes are those of the package `imagehash` (pHash: Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010), which takes twice as long for small images.
"""

import hashlib
import json
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from scipy.fft import dct

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import open_measured, read_file
from pawtune.data_pipeline.images.formats import decoder_versions
from pawtune.data_pipeline.images.pillow_warnings import quiet_pillow
from pawtune.data_pipeline.progress import Progress, silent
from pawtune.data_pipeline.safe_files import write_atomically
from pawtune.data_pipeline.splitting.folder_layout import Candidate, Reject

# Another Pillow may decode or reject differently.
CACHE_VERSION = f"5 pillow {PIL.__version__} heif {decoder_versions()['heif']}"
MAX_THREADS = 16
SHARD = 16  # files that are read in a row


@dataclass(frozen=True)
class Facts:
    """What is read from an image file.

    perceptual_hash: 64-bit DCT hash, 16 hex digits. grey_bits: how many bits a 16-bit greyscale
    image uses, of decode.GREY_BITS; 0 for all others.
    """

    sha256: str
    perceptual_hash: str
    width: int
    height: int
    grey_bits: int = 0


Shard = Sequence[Candidate]
Read = list[tuple[str, Facts | str]]
"""Each path of a shard with its facts, or with why it is not usable."""

ReadShards = Callable[[Path, Sequence[Shard]], Generator[Read]]
"""From the root and shards to what was read of each, in any order."""

Row = tuple[int, int, Facts]
"""What is kept of a file: size in bytes, modification time in nanoseconds, facts."""


def read_facts(path: Path) -> Facts:
    """Hashes and decodes one file.

    Raises:
        DataError: it is not usable (the reason, without the name).
    """
    data = read_file(path)
    image, grey_bits = open_measured(data)
    digest = hashlib.sha256(data).hexdigest()
    return Facts(digest, perceptual_hash(image), image.width, image.height, grey_bits)


def perceptual_hash(image: Image.Image) -> str:
    """Which of a picture's 64 lowest frequencies are above their median: 16 hex digits.

    The discrete cosine transform looks at 32 x 32 px. Larger images are averaged down to 128 px or
    more before: 0.1 ms instead of 3 for a photo, and 2 of the 64 bits at most are others.
    """
    factor = min(image.size) // 128
    grey = image.convert("L")
    if factor > 1:
        grey = grey.reduce(factor)
    pixels = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dct(dct(pixels, axis=0)[:8], axis=1)[:, :8].ravel()
    median = np.sort(low)[31:33].mean()
    return np.packbits(low > median).tobytes().hex()


def read_on_threads(root: Path, shards: Sequence[Shard]) -> Generator[Read]:
    """Reads shards in order, one thread for each processor; a `ReadShards`."""
    executor = ThreadPoolExecutor(num_threads())
    try:
        yield from executor.map(partial(read_shard, root), shards)
    finally:
        executor.shutdown(cancel_futures=True)


def num_threads() -> int:
    """Threads that read images: one for each processor."""
    return min(MAX_THREADS, os.cpu_count() or 1)


def read_shard(root: Path, shard: Shard) -> Read:
    """Reads the files of a shard one after the other."""
    found: Read = []
    with quiet_pillow():
        for candidate in shard:
            try:
                found.append((candidate.path, read_facts(root / candidate.path)))
            except DataError as error:
                found.append((candidate.path, str(error)))
    return found


def read_all(
    root: Path,
    candidates: Sequence[Candidate],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    read_shards: ReadShards = read_on_threads,
) -> tuple[dict[str, Facts], list[Reject]]:
    """Facts by path, and the files that are not usable.

    Facts are kept under `cache` by path, size and modification time, also when the work is
    interrupted; rejected files are looked at again each time. `read_shards` reads
    the others.
    """
    progress = progress or silent
    store = None if cache is None else _store_path(cache, root)
    known = {} if store is None else _load(store)
    kept = {
        found.path: known[found.path]
        for found in candidates
        if found.path in known and known[found.path][:2] == (found.size, found.modified_ns)
    }
    to_read = [found for found in candidates if found.path not in kept]
    progress("hash", len(kept), len(candidates))
    fresh: dict[str, Facts] = {}
    try:
        shards = [to_read[start : start + SHARD] for start in range(0, len(to_read), SHARD)]
        rejects = []
        with closing(read_shards(root, shards)) as reading:
            for shard in reading:
                for path, read in shard:
                    if isinstance(read, Facts):
                        fresh[path] = read
                    else:
                        rejects.append(Reject(path, read))
                    done = len(kept) + len(fresh) + len(rejects)
                    progress("hash", done, len(candidates))
    finally:
        for found in to_read:
            if found.path in fresh:
                kept[found.path] = (found.size, found.modified_ns, fresh[found.path])
        if store is not None and kept != known:
            _save(store, kept)
    return {path: facts for path, (_, _, facts) in kept.items()}, rejects


def _store_path(cache: Path, root: Path) -> Path:
    return cache / "hashes" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"


def _load(store: Path) -> dict[str, Row]:
    """Rows by path. A store that cannot be read counts as empty: it only saves time."""
    try:
        content = json.loads(store.read_bytes())
        if content["version"] != CACHE_VERSION:
            return {}
        return {
            path: (int(row[0]), int(row[1]), Facts(str(row[2]), str(row[3]), *map(int, row[4:7])))
            for path, row in content["files"].items()
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {}


def _save(store: Path, rows: dict[str, Row]) -> None:
    files = {path: [size, time, *astuple(facts)] for path, (size, time, facts) in rows.items()}
    write_atomically(store, json.dumps({"version": CACHE_VERSION, "files": files}))
