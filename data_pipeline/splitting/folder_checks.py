"""Which subfolders may be classes, and what shows that they are not: the same folders inside,
masks beside images."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_tree import (
    BROKEN_LINK,
    DOCUMENT_SUFFIXES,
    ENVIRONMENT,
    OWN_OUTPUT,
    UNLISTED,
    Folder,
    Found,
    is_system_folder,
    may_be_image,
)
from pawtune.data_pipeline.splitting.split_names import (
    EXTRA_FOLDERS,
    MASK_WORDS,
    is_mask_class_name,
    is_mask_name,
    is_part_name,
    is_thumbnail_name,
    split_of_name,
    words_of,
)

_MASK = "(mask|masks|seg|segmentation|gt|groundtruth|label|labels|annotation|trimap|contour)"
MASK_STEM = re.compile(rf"(?i)(?P<base>.+?)[ ._-]*{_MASK}[ ._-]?\d*")
MASK_PREFIX = re.compile(rf"(?i){_MASK}[ ._-]*(?P<base>.+)")
IMAGE_WORD = re.compile(r"(?i)[ ._-]*(image|img|photo|original|rgb)$|^(image|img|photo)[ ._-]*")
CONTAINER_WORDS = {"data", "dataset", "images", "imgs", "jpeg", "jpg", "photos", "pictures", "png"}
THUMBNAILS = "in a folder of thumbnails, small copies of other images"
MOST_SPLITS = 10  # folders at the top; more are classes for certain
SHOWN_NAMES = 6


def without_thumbnails(folder: Folder) -> Folder:
    """The same tree, where folders of thumbnails beside other images are skipped."""
    kept = {name: without_thumbnails(inner) for name, inner in folder.folders.items()}
    skipped = list(folder.skipped)
    for name in [name for name in kept if is_thumbnail_name(name)]:
        if 0 < kept[name].num_images < folder.num_images:
            skipped += [replace(item, fault=THUMBNAILS) for item in kept.pop(name).all_found()]
    return Folder(folder.path, kept, folder.files, skipped)


def listing(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    names = list(names)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(shown(name) for name in names[:SHOWN_NAMES]) + more


def class_name(name: str) -> str:
    """A folder's name as a class: in NFC, as file systems differ in how they compose letters."""
    return unicodedata.normalize("NFC", name)


def data_folders(folder: Folder) -> tuple[dict[str, Folder], dict[str, Folder]]:
    """The subfolders that hold images, and those that hold none but may be meant to."""
    filled = {name: inner for name, inner in folder.folders.items() if inner.num_images}
    empty = {
        name: inner
        for name, inner in folder.folders.items()
        if not inner.num_images and not _is_extra(inner)
    }
    return filled, empty


def all_data_folders(folder: Folder) -> dict[str, Folder]:
    """Both of `data_folders`."""
    filled, empty = data_folders(folder)
    return {**filled, **empty}


def _is_extra(folder: Folder) -> bool:
    """Whether a folder without images is no class: documents, output, a usual name for such."""
    if any(found.fault in (OWN_OUTPUT, ENVIRONMENT) for found in folder.skipped):
        return True
    if is_system_folder(folder.name):
        return True
    words = words_of(folder.name)
    if words and not set(words) - EXTRA_FOLDERS:
        return True
    files = [found for found in folder.all_found() if not found.fault]
    suffixes = {PurePosixPath(found.path).suffix.lower() for found in files}
    return bool(suffixes) and suffixes <= DOCUMENT_SUFFIXES


def holes(folder: Folder) -> list[Found]:
    """Items directly in a folder that may have been folders of images, and cannot be entered."""
    return [
        found
        for found in folder.skipped
        if (found.fault or "").startswith(UNLISTED)
        or (found.fault == BROKEN_LINK and not PurePosixPath(found.path).suffix)
    ]


def is_wrapper(folder: Folder) -> bool:
    """Whether its only images lie in one subfolder that is named as no class, and is none."""
    filled = data_folders(folder)[0]
    if len(filled) != 1 or folder.own_images:
        return False
    (only,) = filled.values()
    named = _is_container(only.name) or split_of_name(only.name) or only.name == folder.name
    return bool(named) and bool(only.own_images) and not data_folders(only)[0]


def describe_without_images(tree: Folder, classes: Sequence[Folder]) -> list[str]:
    """A sentence about folders beside the classes that are left out as they hold no images."""
    above = {PurePosixPath(folder.path).parent.as_posix() for folder in classes}
    left = []
    for place in sorted(above):
        holder = tree
        for name in PurePosixPath(place).parts:
            holder = holder.folders[name]
        left += [
            f"{shown(inner.path)} ({len(files):,} files such as {shown(files[0])})"
            for name, inner in holder.folders.items()
            if not inner.num_images and not is_system_folder(name) and inner not in classes
            if not words_of(name) or set(words_of(name)) - EXTRA_FOLDERS
            if (files := [found.path for found in inner.all_found() if not found.fault])
        ]
    return [f"left out, as they hold no images: {listing(left)}"] if left else []


def _is_container(name: str) -> bool:
    return bool(words_of(name)) and not set(words_of(name)) - CONTAINER_WORDS


def check_structure(place: str, classes: Mapping[str, Folder]) -> None:
    """Refuses folders that may be splits, copies or wrappers instead of classes.

    Raises:
        DataError: with what was seen.
    """
    deep = {n: f for n, f in classes.items() if len(f.folders) > 1 and not f.own_images}
    inside = {n: {class_name(i) for i in data_folders(f)[0]} for n, f in deep.items()}
    for name, inner in inside.items():
        copied = inner & {class_name(other) for other in classes if other != name}
        if len(copied) > 1 or (copied and len(copied) == len(classes) - 1):
            raise DataError(
                f"{place}: {shown(name)} holds folders called like those beside it "
                f"({listing(sorted(copied))}); move it away if it is a copy, or the others into "
                "a train folder if it is a split"
            )
        holds_classes = _is_container(name) or split_of_name(name) is not None
        if holds_classes and len(inner) > 1 and len(deep) < len(classes):
            raise DataError(
                f"{place}: {shown(name)} holds folders ({listing(sorted(inner))}) and stands "
                f"beside {listing(sorted(set(classes) - {name}))}; did you mean "
                f"{place}/{shown(name)}?"
            )
    if len(deep) == len(classes) > MOST_SPLITS and _same_few(inside.values()):
        raise DataError(
            f"{place}: {len(classes):,} folders ({listing(classes)}) hold the same folders "
            f"({listing(sorted(next(iter(inside.values()))))}), so which of both are the classes "
            "is not clear; give the labels with --labels FILE.csv, or lay images of one class "
            "into one folder"
        )
    if len(deep) == len(classes) <= MOST_SPLITS and _share(inside.values()):
        raise DataError(
            f"{place}: {listing(classes)} hold the same folders "
            f"({listing(sorted(next(iter(inside.values()))))}), so they look like splits and not "
            "like classes; name them train, validation and test, or give one of them with --data"
        )


def _same_few(inside: Collection[set[str]]) -> bool:
    """Whether nearly all hold the same two or more folders, as sites or patients with labels do."""
    holders = Counter(name for names in inside for name in names)
    if all(is_part_name(name) for name in holders):
        return False
    return len(holders) <= MOST_SPLITS and all(2 * n > len(inside) for n in holders.values())


def _share(inside: Collection[set[str]]) -> bool:
    """Whether at least half of what each holds is in another too, and is no part of a class."""
    holders = Counter(name for names in inside for name in names)
    if all(is_part_name(name) for name in holders):
        return False
    return all(sum(holders[name] > 1 for name in names) * 2 >= len(names) > 0 for names in inside)


def describe_subfolders(classes: Sequence[Folder]) -> list[str]:
    """A sentence about subfolders whose images all count for their class, if there are any."""
    total = sum(folder.num_images for folder in classes)
    counts = Counter[str]()
    holders = Counter[str]()
    for folder in classes:
        for name, inner in folder.folders.items():
            if inner.num_images:
                counts[name] += inner.num_images
                holders[name] += 1
    if not counts or (len(counts) == 1 and sum(counts.values()) == total):
        return []  # class/images says nothing
    listed = [f"{shown(name)} {count:,}" for name, count in counts.most_common(SHOWN_NAMES)]
    more = f" and {len(counts) - SHOWN_NAMES} more" if len(counts) > SHOWN_NAMES else ""
    same = len(classes) > 1 and set(holders.values()) == {len(classes)}
    head = (
        "every class folder holds the same subfolders" if same else "class folders hold subfolders"
    )
    return [f"{head}, whose images all count for their class: {', '.join(listed)}{more}"]


def plain_name(name: str) -> str:
    """A name without what few people tell apart: case, blanks, invisible characters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(c for c in folded if c.isprintable()).split())


def describe_alike(names: Sequence[str]) -> list[str]:
    """A sentence about class names that may be one class: Cat, cat and "cat "."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(plain_name(name), []).append(name)
    same = [", ".join(map(repr, found)) for found in alike.values() if len(found) > 1]
    if not same:
        return []
    return [
        f"class names that differ in case, blanks or invisible characters alone: "
        f"{'; '.join(same)}; they stay different classes: use one name if they are one"
    ]


def refuse_twins(root: str, found: tuple[str, str], lacks: str, others: Iterable[str]) -> None:
    """Refuses one class under two names in two splits.

    Args:
        root: The data's folder, for the message.
        found: A split, and its class that another split lacks.
        lacks: The other split.
        others: Classes that it alone has.

    Raises:
        DataError: One of these is called nearly the same.
    """
    split, name = found
    for other in sorted(others):
        if re.sub("[_-]", " ", plain_name(other)) == re.sub("[_-]", " ", plain_name(name)):
            raise DataError(
                f"{root}: every split must have the same class folders; {name!r} is in "
                f"{shown(split)} and {other!r} in {shown(lacks)}: give folders of one class one "
                "name"
            )


def describe_odd_one(classes: Mapping[str, Folder]) -> list[str]:
    """A sentence about folders named as documents and output, with few images beside classes."""
    sizes = sorted(folder.num_images for folder in classes.values())
    odd = [
        f"{shown(name)} ({folder.num_images:,})"
        for name, folder in classes.items()
        if words_of(name) and not set(words_of(name)) - EXTRA_FOLDERS
        if folder.num_images * 3 < sizes[len(sizes) // 2]
    ]
    if not odd or len(classes) < 3:
        return []
    return [
        f"counted as classes, but named as folders of documents or output: {', '.join(odd)}; move "
        "them out of the data if they are"
    ]


def refuse_masks(root: str, classes: Sequence[Folder]) -> None:
    """Refuses class folders where some images look like masks of the others, by names alone.

    Where other classes are named after masks too (`masks` beside `no_masks`), they are classes.

    Raises:
        DataError: with counts.
    """
    total = sum(folder.num_images for folder in classes)
    _refuse_mask_classes(root, classes, total)
    _refuse_mask_folders(root, classes, total)
    _refuse_mask_files(root, classes, total)


def _refuse_mask_classes(root: str, classes: Sequence[Folder], total: int) -> None:
    names = dict.fromkeys(folder.name for folder in classes)
    images = [name for name in names if not is_mask_name(name)]
    if 0 < len(images) < len(names) and all(map(_is_container, images)):
        raise DataError(
            f"{root}: {listing(images)} and {listing(names.keys() - {*images})} look like images "
            "and their masks, and not like classes; give a folder of class folders, or the labels "
            f"of the images with --labels FILE.csv{_meant(root, classes)}"
        )
    masks = [folder for folder in classes if is_mask_class_name(folder.name)]
    others = [word for folder in classes if folder not in masks for word in words_of(folder.name)]
    if masks and not MASK_WORDS & set(others):
        count = sum(folder.num_images for folder in masks)
        raise DataError(
            f"{root}: class folders must hold images only, but {shown(masks[0].path)} is named as "
            f"a folder of masks or annotations ({count:,} of {total:,} images); move it out of the "
            "data, or rename it if it is a class"
        )


def _meant(root: str, classes: Sequence[Folder]) -> str:
    """The folder that holds class folders, where the other holds their masks."""
    holders = [f for f in classes if _is_container(f.name) and len(data_folders(f)[0]) > 1]
    return f"; did you mean {root}/{shown(holders[0].path)}?" if len(holders) == 1 else ""


def _refuse_mask_folders(root: str, classes: Sequence[Folder], total: int) -> None:
    masks = [
        inner
        for folder in classes
        for inner in folder.folders.values()
        if inner.num_images and inner.num_images < folder.num_images and is_mask_name(inner.name)
    ]
    if masks:
        count = sum(inner.num_images for inner in masks)
        raise DataError(
            f"{root}: class folders must hold images only, but {count:,} of {total:,} lie in "
            f"folders named as masks or annotations ({shown(masks[0].path)}, {len(masks)} such); "
            "move these folders out of the data"
        )


def _refuse_mask_files(root: str, classes: Sequence[Folder], total: int) -> None:
    masks = [path for folder in classes for path in _mask_files(folder)]
    if len(masks) > 0.2 * total:
        raise DataError(
            f"{root}: class folders must hold images only, but {len(masks):,} of {total:,} are "
            f"named as the mask of another ({shown(masks[0])}); move these files out of the data"
        )


def _mask_files(folder: Folder) -> Iterator[str]:
    """Files `x_mask.png` beside `x.png`, or `mask_x.png` beside `image_x.png`, at any depth."""
    stems = {PurePosixPath(found.path).stem for found in folder.files}
    bases = stems | {IMAGE_WORD.sub("", stem) for stem in stems}
    for found in folder.files:
        stem = PurePosixPath(found.path).stem
        match = MASK_STEM.fullmatch(stem) or MASK_PREFIX.fullmatch(stem)
        if match and match["base"] in bases and may_be_image(found.path):
            yield found.path
    for inner in folder.folders.values():
        yield from _mask_files(inner)
