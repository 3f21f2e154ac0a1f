"""The manifest: every image kept, its split, its hashes; every file left out, and why.

Identity of an image is the hash of its bytes. `build` makes manifests.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import repeat
from operator import add
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import Decoding
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting import manifest_io
from pawtune.data_pipeline.splitting.folder_layout import Reject
from pawtune.data_pipeline.splitting.split_names import SPLITS

__all__ = ["SPLITS", "Manifest", "ManifestEntry", "Reject", "validation_labels"]


class ManifestEntry(NamedTuple):
    """An image that is used. (A named tuple, which a million images make in a second.)

    path: relative to the root, posix. sha256: of the file's bytes. perceptual_hash: 16 hex digits.
    group: the smallest sha256 among its duplicates and near duplicates. width, height: pixels.
    decoding: the manifest's.
    """

    path: str
    label: str
    split: str
    sha256: str
    perceptual_hash: str
    group: str
    width: int
    height: int
    decoding: Decoding = Decoding()

    @property
    def pixels_key(self) -> str:
        """What its pixels depend on."""
        grey_bits, resizing = self.decoding
        deep = [] if grey_bits == 16 else [str(grey_bits)]
        averaged = [] if resizing == "bilinear" else [resizing]
        return " ".join((self.sha256, *deep, *averaged))


@dataclass(frozen=True)
class Manifest:
    """Which images are in which split.

    root: absolute folder. layout: as in `folder_layout`. entries and rejects: sorted by path.
    fingerprint: sha256 over contents, labels and splits; neither folder nor file names matter.
    notes: what was understood of the folder and is not obvious, a sentence each. decoding: how
    files become pixels.
    """

    root: str
    class_names: tuple[str, ...]
    entries: tuple[ManifestEntry, ...]
    rejects: tuple[Reject, ...]
    warnings: tuple[str, ...]
    seed: int
    layout: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    decoding: Decoding = Decoding()

    def split(self, name: str) -> tuple[ManifestEntry, ...]:
        """The entries of one split, in an order that depends on content only."""
        if name not in SPLITS:
            raise DataError(f"split must be one of {', '.join(SPLITS)}, received {name!r}")
        found = (entry for entry in self.entries if entry.split == name)
        return tuple(sorted(found, key=lambda entry: (entry.sha256, entry.path)))

    def labels(self, split: str) -> NDArray[np.int32]:
        """(N,) int32: indices into class_names, in the order of split()."""
        index = {name: number for number, name in enumerate(self.class_names)}
        return np.array([index[entry.label] for entry in self.split(split)], np.int32)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and label."""
        table = {split: dict.fromkeys(self.class_names, 0) for split in SPLITS}
        for entry in self.entries:
            table[entry.split][entry.label] += 1
        return table

    def sizes(self) -> dict[str, int]:
        """Images by split."""
        found = Counter(entry.split for entry in self.entries)
        return {split: found[split] for split in SPLITS}

    def majority(self, split: str) -> tuple[str, float]:
        """The most frequent class of a split, and its share, which a constant answer scores."""
        labels = self.counts()[split]
        label = max(labels, key=labels.__getitem__)
        return label, labels[label] / max(1, sum(labels.values()))

    def duplicates(self) -> tuple[tuple[ManifestEntry, ...], ...]:
        """The groups of two or more exact or near duplicates.

        Each is within one split, but for near duplicates in splits that were given.
        """
        groups = defaultdict(list)
        for entry in self.entries:
            groups[entry.group].append(entry)
        return tuple(tuple(groups[name]) for name in sorted(groups) if len(groups[name]) > 1)

    def save(self, folder: Path) -> None:
        """Writes manifest.csv (a row per entry), manifest.json (the rest), validation labels."""
        apart = ("entries", "decoding")
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        header = {
            **rest,
            **self.decoding._asdict(),
            "rejects": [asdict(reject) for reject in self.rejects],
            "sizes": self.sizes(),
        }
        rows = (entry[:-1] for entry in self.entries)
        manifest_io.save(folder, rows, header, self.labels("validation"))

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Reads what save() wrote and checks it: a manifest may come from someone else.

        Raises:
            DataError: a file is missing, a value is out of its range, a path leaves the root, or
                the rows are not those of the fingerprint.
        """
        columns, header = manifest_io.load(folder)
        decoding = Decoding(header.grey_bits, header.resizing)
        rows = zip(*columns, repeat(decoding), strict=False)
        # As ManifestEntry._make does, without a call of Python's for each image.
        entries = tuple(map(tuple.__new__, repeat(ManifestEntry), rows))
        manifest = cls(
            root=header.root,
            class_names=tuple(header.class_names),
            entries=entries,
            rejects=tuple(Reject(reject.path, reject.reason) for reject in header.rejects),
            warnings=tuple(header.warnings),
            seed=header.seed,
            layout=header.layout,
            fingerprint=header.fingerprint,
            notes=tuple(header.notes),
            decoding=decoding,
        )
        _check_dealt_once(folder, entries, columns)
        is_whole = header.sizes is None or header.sizes == manifest.sizes()
        if not is_whole or _fingerprint(*columns[1:4]) != manifest.fingerprint:
            raise DataError(
                f"{shown(folder)}: manifest.csv does not have the fingerprint in manifest.json; "
                "one of "
                "them was changed or is from another run; restore both"
            )
        return manifest


def validation_labels(folder: Path) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Class names, and the classes of the validation images in the order of `Manifest.split`.

    A row for each image is read only where an early version wrote the manifest.

    Raises:
        DataError: the manifest cannot be read.
    """
    header = manifest_io.read_header(folder)
    labels = manifest_io.read_labels(folder, header)
    if labels is None:
        labels = Manifest.load(folder).labels("validation")
    return tuple(header.class_names), labels


def _check_dealt_once(
    folder: Path, entries: Sequence[ManifestEntry], columns: manifest_io.Columns
) -> None:
    """What no manifest of ours holds: one file or one content in two places."""
    paths, labels, splits, hashes, *_ = columns
    contents = len(set(hashes))
    if contents < len(hashes) and len(set(zip(hashes, splits, labels, strict=True))) > contents:
        places: dict[str, tuple[str, str]] = {}
        for entry in entries:
            place = (entry.split, entry.label)
            if places.setdefault(entry.sha256, place) != place:
                raise DataError(
                    f"{shown(folder)}: manifest.csv has one content under two splits or labels, "
                    f"{shown(entry.path)}; this is no manifest of pawtune's: restore it"
                )
    if len(set(paths)) != len(entries):
        raise DataError(
            f"{shown(folder)}: manifest.csv has a path twice; this is no manifest of pawtune's: "
            "restore it"
        )


def fingerprint(entries: Iterable[ManifestEntry]) -> str:
    """sha256 over what makes a data set: contents with their labels and splits.

    Of the JSON text of the sorted rows [sha256, label, split].
    """
    _, labels, splits, hashes, *_ = zip(*entries, strict=True)
    return _fingerprint(labels, splits, hashes)


def _fingerprint(labels: Sequence[str], splits: Sequence[str], hashes: Sequence[str]) -> str:
    # No split's name ends in another's: a label with its split behind it is one place.
    ends = {
        label + split: f'", {json.dumps(label)}, "{split}"]'
        for label in set(labels)
        for split in SPLITS
    }
    rows = sorted(map(add, hashes, map(ends.__getitem__, map(add, labels, splits))))
    return hashlib.sha256(('[["' + ', ["'.join(rows) + "]").encode()).hexdigest()
