"""The manifest: every image kept, its split, its hashes; every file left out, and why.

Identity of an image is the hash of its bytes. In order:
1. files that are no usable image are rejected (`images.decode`);
2. one content under two labels: all copies are rejected;
3. exact and near duplicates form groups, which share a split; where train and validation are
   given, a duplicate across them stays in the earlier of train, validation, test;
4. what is not given is dealt out by content and seed (`splits`): `root/<class>/` as
   0.7 / 0.15 / 0.15; where only test is missing, 0.2 of validation becomes test.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.progress import Progress
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting import manifest_io as manifest_files
from pawtune.data_pipeline.splitting.duplicates import (
    group_near,
    reject_crossings,
    reject_label_clashes,
)
from pawtune.data_pipeline.splitting.folder_layout import (
    SPLITS,
    Candidate,
    Layout,
    Reject,
    read_layout,
)
from pawtune.data_pipeline.splitting.image_hashes import read_all
from pawtune.data_pipeline.splitting.splits import CARVED_SHARES, WHOLE_SHARES, Member, deal

__all__ = ["SPLITS", "Manifest", "ManifestEntry", "Reject", "build_manifest"]


@dataclass(frozen=True)
class ManifestEntry:
    """An image that is used.

    path: relative to the root, posix. sha256: of the file's bytes. perceptual_hash: 16 hex digits.
    group: the smallest sha256 among its duplicates and near duplicates. width, height: pixels.
    """

    path: str
    label: str
    split: str
    sha256: str
    perceptual_hash: str
    group: str
    width: int
    height: int


@dataclass(frozen=True)
class Manifest:
    """Which images are in which split.

    root: absolute folder. layout: as in `folder_layout`. entries and rejects: sorted by path.
    fingerprint: sha256 over contents, labels and splits; neither folder nor file names matter.
    """

    root: str
    class_names: tuple[str, ...]
    entries: tuple[ManifestEntry, ...]
    rejects: tuple[Reject, ...]
    warnings: tuple[str, ...]
    seed: int
    layout: str
    fingerprint: str

    def split(self, name: str) -> tuple[ManifestEntry, ...]:
        """The entries of one split, in an order that depends on content only."""
        if name not in SPLITS:
            raise DataError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
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

    def duplicates(self) -> tuple[tuple[ManifestEntry, ...], ...]:
        """The groups of two or more exact or near duplicates, each within one split."""
        groups = defaultdict(list)
        for entry in self.entries:
            groups[entry.group].append(entry)
        return tuple(tuple(groups[name]) for name in sorted(groups) if len(groups[name]) > 1)

    def save(self, folder: Path) -> None:
        """Writes manifest.csv (a row per entry) and manifest.json (the rest), each atomically."""
        header = asdict(self)
        manifest_files.save(folder, header.pop("entries"), header)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Reads what save() wrote and checks it: a manifest may come from someone else.

        Raises:
            DataError: a file is missing, a value is out of its range, a path leaves the root, or
                the rows are not those of the fingerprint.
        """
        rows, header = manifest_files.load(folder)
        manifest = cls(
            root=header.root,
            class_names=tuple(header.class_names),
            entries=tuple(ManifestEntry(**row.model_dump()) for row in rows),
            rejects=tuple(Reject(reject.path, reject.reason) for reject in header.rejects),
            warnings=tuple(header.warnings),
            seed=header.seed,
            layout=header.layout,
            fingerprint=header.fingerprint,
        )
        _check_dealt_once(folder, manifest)
        if fingerprint(manifest.entries) != manifest.fingerprint:
            raise DataError(
                f"{shown(folder)}: manifest.csv does not have the fingerprint in manifest.json; "
                "one of "
                "them was changed or is from another run; restore both"
            )
        return manifest


def _check_dealt_once(folder: Path, manifest: Manifest) -> None:
    """What no manifest of ours holds: one file or one content in two places."""
    paths = {entry.path for entry in manifest.entries}
    places: dict[str, tuple[str, str]] = {}
    for entry in manifest.entries:
        place = (entry.split, entry.label)
        if places.setdefault(entry.sha256, place) != place:
            raise DataError(
                f"{shown(folder)}: manifest.csv has one content under two splits or labels, "
                f"{shown(entry.path)}; this is no manifest of pawtune's: restore it"
            )
    if len(paths) != len(manifest.entries):
        raise DataError(
            f"{shown(folder)}: manifest.csv has a path twice; this is no manifest of pawtune's: "
            "restore it"
        )


def fingerprint(entries: Iterable[ManifestEntry]) -> str:
    """sha256 over what makes a data set: contents with their labels and splits."""
    rows = sorted((entry.sha256, entry.label, entry.split) for entry in entries)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def build_manifest(
    root: Path, *, seed: int = 0, cache: Path | None = None, progress: Progress | None = None
) -> Manifest:
    """Makes the manifest of a folder of images.

    Args:
        root: a folder in one of the layouts of `folder_layout`.
        seed: decides the splits that are not given.
        cache: where hashes are kept between runs; None keeps none.
        progress: told ("hash", images done, images in all).

    Raises:
        DataError: the folder cannot be used; see the message.
    """
    root = Path(os.path.realpath(root))
    layout = read_layout(root)
    facts, rejects = read_all(root, layout.candidates, cache=cache, progress=progress)
    kept = {found.path: found for found in layout.candidates if found.path in facts}
    clashes = reject_label_clashes(kept, facts)
    kept = _without(kept, clashes)
    groups, coarse = group_near({path: facts[path] for path in kept})
    crossings = reject_crossings(kept, groups, facts)
    kept = _without(kept, crossings)
    rejects = [*layout.rejects, *rejects, *clashes, *crossings]
    _check_classes_filled(root, layout, kept, rejects)
    splits = _decide_splits(kept, groups, layout, seed)
    entries = tuple(
        ManifestEntry(
            path=path,
            label=kept[path].label,
            split=splits[path],
            sha256=facts[path].sha256,
            perceptual_hash=facts[path].perceptual_hash,
            group=groups[path],
            width=facts[path].width,
            height=facts[path].height,
        )
        for path in sorted(kept)
    )
    manifest = Manifest(
        root=str(root),
        class_names=layout.class_names,
        entries=entries,
        rejects=tuple(sorted(rejects, key=lambda reject: reject.path)),
        warnings=(*([coarse] if coarse else []), *_warn_mixed_groups(entries)),
        seed=seed,
        layout=layout.name,
        fingerprint=fingerprint(entries),
    )
    _check_splits_filled(manifest)
    return manifest


def _without(kept: dict[str, Candidate], rejects: Iterable[Reject]) -> dict[str, Candidate]:
    gone = {reject.path for reject in rejects}
    return {path: found for path, found in kept.items() if path not in gone}


def _check_classes_filled(
    root: Path, layout: Layout, kept: Mapping[str, Candidate], rejects: list[Reject]
) -> None:
    """Every class folder that was given must hold a usable image."""
    if not kept:
        raise DataError(f"{shown(root)}: no usable images{_first_reasons(rejects)}")
    given = [None] if layout.name == "classes" else layout.name.split("_")
    filled = {(found.split, found.label) for found in kept.values()}
    for split in given:
        for label in layout.class_names:
            if (split, label) not in filled:
                inside = [r for r in rejects if f"/{label}/" in f"/{r.path}"]
                place = f"class folder {label!r}" + (f" of {split}" if split else "")
                raise DataError(
                    f"{shown(root)}: {place} holds no usable image{_first_reasons(inside)}; "
                    "add images or remove the folder"
                )


def _first_reasons(rejects: list[Reject]) -> str:
    if not rejects:
        return ""
    return f" ({len(rejects)} left out; {shown(rejects[0].path)}: {rejects[0].reason})"


def _decide_splits(
    kept: Mapping[str, Candidate], groups: Mapping[str, str], layout: Layout, seed: int
) -> dict[str, str]:
    splits = {path: found.split for path, found in kept.items()}
    if layout.name == "classes":
        to_deal, shares, rest = list(kept), WHOLE_SHARES, "train"
    elif layout.name == "train_validation":
        to_deal = [path for path in kept if splits[path] == "validation"]
        shares, rest = CARVED_SHARES, "validation"
    else:
        to_deal, shares, rest = [], {}, "test"
    dealt = deal([Member(kept[path].label, groups[path]) for path in to_deal], shares, rest, seed)
    decided = {path: dealt[groups[path]] for path in to_deal}
    return {path: decided.get(path) or split or "" for path, split in splits.items()}


def _check_splits_filled(manifest: Manifest) -> None:
    for split, labels in manifest.counts().items():
        for label, count in labels.items():
            if count == 0:
                groups = {entry.group for entry in manifest.entries if entry.label == label}
                raise DataError(
                    f"{shown(manifest.root)}: class {label!r} leaves no image for {split} (it has "
                    f"{len(groups)} different images); add images: at least 3 to be split in "
                    "three, at least 2 in a validation folder that test is taken from"
                )


def _warn_mixed_groups(entries: Iterable[ManifestEntry]) -> list[str]:
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.group].append(entry)
    return [
        "near duplicates under different labels: "
        + ", ".join(shown(entry.path) for entry in members)
        for members in groups.values()
        if len({entry.label for entry in members}) > 1
    ]
