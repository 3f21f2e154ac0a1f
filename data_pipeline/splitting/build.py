"""Makes the manifest of a folder of images. In order:

1. files that are no usable image are rejected (`images.decode`);
2. one content under two labels: all copies are rejected;
3. of exact copies in splits that were given, those in the earlier of train, validation, test stay;
   near duplicates across them stay too, with a warning;
4. exact and near duplicates form groups, which share a split wherever it is ours to decide: what
   is not given is dealt out by content and seed, class by class (`splits`). Class folders become
   0.7 / 0.15 / 0.15; where only test is missing it is 0.2 of validation, where only validation is
   missing 0.15 of train.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import Decoding
from pawtune.data_pipeline.progress import Progress
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.duplicates import (
    group_near,
    reject_crossings,
    reject_label_clashes,
)
from pawtune.data_pipeline.splitting.folder_layout import Candidate, Layout, Reject, read_layout
from pawtune.data_pipeline.splitting.image_hashes import (
    Facts,
    ReadShards,
    read_all,
    read_on_threads,
)
from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile, read_labels
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry, fingerprint
from pawtune.data_pipeline.splitting.relabel import (
    check_contents,
    correct_layout,
    read_corrections,
)
from pawtune.data_pipeline.splitting.split_names import SPLITS, TRAIN, VALIDATION
from pawtune.data_pipeline.splitting.splits import (
    TEST_OF_VALIDATION,
    VALIDATION_OF_TRAIN,
    WHOLE_SHARES,
    Member,
    deal,
)

THINNED_SHARE = 0.1  # of a class: more than that left out is worth a warning
SHOWN_CLASSES = 10
DARK_BITS = 4  # unused bits that leave an image a 16th of the brightness

Kept = dict[str, Candidate]

# By layout: which of the given splits is dealt out, in which shares, and what the rest becomes.
DEALT: Mapping[str, tuple[str | None, Mapping[str, Fraction], str]] = {
    "classes": (None, WHOLE_SHARES, TRAIN),
    "train_validation": (VALIDATION, TEST_OF_VALIDATION, VALIDATION),
    "train_test": (TRAIN, VALIDATION_OF_TRAIN, TRAIN),
}


def build_manifest(
    root: Path,
    *,
    seed: int = 0,
    labels: LabelFile | None = None,
    relabel: Path | None = None,
    min_class_size: int = 0,
    area_from: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    read_shards: ReadShards = read_on_threads,
) -> Manifest:
    """Makes the manifest of a folder of images.

    Args:
        root: a folder in one of the layouts of `folder_layout`, or with `labels` any.
        seed: decides the splits that are not given.
        labels: a table of labels, where folders do not tell them.
        relabel: a file of corrections, see `relabel`.
        min_class_size: classes with fewer different images, in any of the splits given, are left
            out; 0 leaves none out.
        area_from: images are resized by area (see `images.decode.resize`) where the median of
            their shorter sides is so many pixels or more; None: never, but bilinear.
        cache: where hashes are kept between runs; None keeps none.
        progress: called with ("hash" or "compare", images done, images in all).
        read_shards: function that reads and hashes images.

    Raises:
        DataError: the folder cannot be used; see the message.
    """
    root = Path(os.path.realpath(root))
    layout = read_layout(root) if labels is None else read_labels(root, labels)
    facts, unusable = read_all(
        root, layout.candidates, cache=cache, progress=progress, read_shards=read_shards
    )
    if relabel is not None:
        corrections = read_corrections(relabel)
        check_contents(corrections, {path: found.sha256 for path, found in facts.items()})
        layout = correct_layout(layout, corrections)
    kept = {found.path: found for found in layout.candidates if found.path in facts}
    clashes = reject_label_clashes(kept, facts)
    kept = _without(kept, clashes)
    crossings = reject_crossings(kept, facts, SPLITS)
    kept = _without(kept, crossings)
    groups, coarse = group_near(
        root, {path: facts[path] for path in kept}, cache=cache, progress=progress
    )
    rejects = [*layout.rejects, *unusable, *clashes, *crossings]
    if not kept:
        raise DataError(f"{shown(root)}: no usable images{_first_reasons(rejects)}")
    notes = list(layout.notes)
    small = _small_classes(layout, kept, groups, min_class_size)
    if small:
        notes.append(f"left out by --min-class-size {min_class_size}: {_sized(small)}")
        rejects += [
            Reject(path, f"class of fewer than {min_class_size} different images")
            for path, found in kept.items()
            if found.label in small
        ]
        kept = {path: found for path, found in kept.items() if found.label not in small}
    names = tuple(name for name in layout.class_names if name not in small)
    _check_enough(root, layout, names, kept, groups, rejects)
    notes += _describe_dealing(layout)
    bits = max((facts[path].grey_bits for path in kept), default=0) or 16
    _check_range(root, {path: facts[path].grey_bits for path in kept}, bits)
    if bits < 16:
        notes.append(
            f"16-bit greyscale images use {bits} bits (0 to {(1 << bits) - 1:,}) and are scaled "
            "from that range"
        )
    side = int(np.median([min(facts[path].width, facts[path].height) for path in kept]))
    by_area = area_from is not None and side >= area_from
    if by_area and area_from:
        notes.append(f"large images (typically {side:,} px) are resized by area, not bilinear")
    decoding = Decoding(bits, "area" if by_area else "bilinear")
    splits = _decide_splits(kept, groups, layout, seed)
    entries = _entries(kept, facts, groups, splits, decoding)
    warnings = [
        *([coarse] if coarse else []),
        *_warn_thinned(layout.candidates, [*unusable, *clashes, *crossings]),
        *_warn_shared(kept, groups),
        *_warn_mixed_groups(entries),
    ]
    manifest = Manifest(
        root=str(root),
        class_names=names,
        entries=entries,
        rejects=tuple(sorted(rejects, key=lambda reject: reject.path)),
        warnings=tuple(warnings),
        seed=seed,
        layout=layout.name,
        fingerprint=fingerprint(entries),
        notes=tuple(notes),
        decoding=decoding,
    )
    _check_splits_filled(manifest)
    return manifest


def _check_range(root: Path, used: Mapping[str, int], bits: int) -> None:
    """One range for the set must not leave most 16-bit images nearly black (a 16th or less)."""
    deep = {path: own for path, own in used.items() if own}
    dark = {path: own for path, own in deep.items() if own <= bits - DARK_BITS}
    if 2 * len(dark) > len(deep):
        least, most = min(dark, key=lambda path: dark[path]), max(deep, key=lambda path: deep[path])
        raise DataError(
            f"{shown(root)}: 16-bit greyscale images must share one range, but {len(dark):,} of "
            f"{len(deep):,} use {max(dark.values())} bits or fewer (such as {shown(least)}) and "
            f"{shown(most)} uses {bits}, which would leave them nearly black; scale the files to "
            "one range, or remove those that differ"
        )


def _entries(
    kept: Kept,
    facts: Mapping[str, Facts],
    groups: Mapping[str, str],
    splits: Mapping[str, str],
    decoding: Decoding,
) -> tuple[ManifestEntry, ...]:
    return tuple(
        ManifestEntry(
            path=path,
            label=kept[path].label,
            split=splits[path],
            sha256=facts[path].sha256,
            perceptual_hash=facts[path].perceptual_hash,
            group=groups[path],
            width=facts[path].width,
            height=facts[path].height,
            decoding=decoding,
        )
        for path in sorted(kept)
    )


def _without(kept: Kept, rejects: Iterable[Reject]) -> Kept:
    gone = {reject.path for reject in rejects}
    return {path: found for path, found in kept.items() if path not in gone}


def _given(layout: Layout) -> list[str | None]:
    return [None] if layout.name == "classes" else [*layout.name.split("_")]


def _sizes(
    layout: Layout, kept: Kept, groups: Mapping[str, str]
) -> dict[str, dict[str | None, int]]:
    """Different images of each class in each of the given splits."""
    found = {(kept[path].label, kept[path].split, groups[path]) for path in kept}
    counts = Counter((label, split) for label, split, _ in found)
    return {
        label: {split: counts[label, split] for split in _given(layout)}
        for label in layout.class_names
    }


def _small_classes(
    layout: Layout, kept: Kept, groups: Mapping[str, str], min_class_size: int
) -> dict[str, int]:
    if min_class_size < 1:
        return {}
    sizes = _sizes(layout, kept, groups).items()
    least = {label: min(by_split.values()) for label, by_split in sizes}
    return {label: size for label, size in least.items() if size < min_class_size}


def _sized(sizes: Mapping[str, int]) -> str:
    listed = [f"{label!r} ({size})" for label, size in list(sizes.items())[:SHOWN_CLASSES]]
    return ", ".join(listed) + (
        f" and {len(sizes) - len(listed)} more" if len(sizes) > len(listed) else ""
    )


def _check_enough(
    root: Path,
    layout: Layout,
    names: Sequence[str],
    kept: Kept,
    groups: Mapping[str, str],
    rejects: Sequence[Reject],
) -> None:
    """Every class must leave an image for each split; all that do not are named at once."""
    if len(names) < 2:
        raise DataError(
            f"{shown(root)}: at least 2 classes are needed, and --min-class-size leaves "
            f"{len(names)}; lower it, or add images"
        )
    source, shares, _ = DEALT.get(layout.name, (None, {}, ""))
    sizes = _sizes(layout, kept, groups)
    for split in _given(layout):
        needed = 1 + (len(shares) if split == source else 0)
        short = {name: sizes[name][split] for name in names if sizes[name][split] < needed}
        if not short:
            continue
        place = f" in {split}" if split else ""
        why = f" ({' and '.join(shares)} {'are' if len(shares) > 1 else 'is'} taken from them)"
        empty = [reject for reject in rejects if f"/{next(iter(short))}/" in f"/{reject.path}"]
        raise DataError(
            f"{shown(root)}: every class must have at least {needed} different "
            f"image{'s' if needed > 1 else ''}{place}{why if needed > 1 else ''}, but "
            f"{len(short)} of {len(names)} have fewer: {_sized(short)}"
            f"{_first_reasons(empty)}; add images, or leave these classes out with "
            f"--min-class-size {needed}"
        )


def _first_reasons(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return ""
    return f" ({len(rejects)} left out; {shown(rejects[0].path)}: {rejects[0].reason})"


def _describe_dealing(layout: Layout) -> list[str]:
    if layout.name == "train_test":
        return ["there is no validation split: 15% of each class of train become validation"]
    if layout.name == "train_validation":
        return ["there is no test split: 20% of each class of validation become test"]
    return []


def _decide_splits(
    kept: Kept, groups: Mapping[str, str], layout: Layout, seed: int
) -> dict[str, str]:
    decided = {path: found.split or "" for path, found in kept.items()}
    if layout.name in DEALT:
        source, shares, rest = DEALT[layout.name]
        paths = [path for path, found in kept.items() if found.split == source]
        members = [Member(kept[path].label, groups[path]) for path in paths]
        dealt = deal(members, shares, rest, seed)
        decided.update({path: dealt[groups[path]] for path in paths})
    return decided


def _check_splits_filled(manifest: Manifest) -> None:
    """Large groups of duplicates may leave nothing for a split, however many images there are."""
    for split, labels in manifest.counts().items():
        for label, count in labels.items():
            if count == 0:
                groups = {entry.group for entry in manifest.entries if entry.label == label}
                raise DataError(
                    f"{shown(manifest.root)}: class {label!r} leaves no image for {split} (it has "
                    f"{len(groups)} different images, in groups of duplicates); add images, or "
                    f"leave the class out with --min-class-size {len(groups) + 1}"
                )


def _warn_thinned(candidates: Sequence[Candidate], rejects: Sequence[Reject]) -> list[str]:
    """Classes that lose a notable part of their images; files that are no images do not count."""
    places = {found.path: (found.split or "", found.label) for found in candidates}
    lost = defaultdict(list)
    for reject in rejects:
        if reject.reason.startswith("not an image"):
            del places[reject.path]
        else:
            lost[places[reject.path]].append(reject)
    totals = Counter(places.values())
    return [
        f"{len(gone)} of {totals[split, label]} images of class {label!r}"
        f"{f' in {split}' if split else ''} are left out ({shown(gone[0].path)}: {gone[0].reason})"
        for (split, label), gone in sorted(lost.items())
        if len(gone) > THINNED_SHARE * totals[split, label]
    ]


def _warn_shared(kept: Kept, groups: Mapping[str, str]) -> list[str]:
    """Near duplicates in two splits that were given."""
    by_group = defaultdict(list)
    for path in sorted(kept):
        by_group[groups[path]].append(path)
    shared = [paths for paths in by_group.values() if len({kept[path].split for path in paths}) > 1]
    if not shared:
        return []
    images = sum(kept[path].split != TRAIN for paths in shared for path in paths)
    first, *_, last = sorted(shared[0], key=lambda path: SPLITS.index(kept[path].split or TRAIN))
    return [
        f"{images} images of validation or test are nearly the same as one of another split, for "
        f"example {shown(last)} and {shown(first)}: they stay where they were given, and "
        "make accuracy look better than it is"
    ]


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
