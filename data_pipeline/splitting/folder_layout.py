"""Which files of a folder are images of which class, and in which split they were given.

Known layouts, at the root or below folders that hold nothing else (docs/data.md has an example of
each): class folders; train, validation and test folders of class folders, under any usual name;
class folders that hold train, validation and test folders. Below a class folder any depth will do.
A structure that is none of these is refused with what was seen, never guessed.

Every item below the root is a candidate or a reject, so that totals add up.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.other_files import SEEN_BYTES, stand_in
from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_checks import (
    THUMBNAILS,
    all_data_folders,
    check_structure,
    class_name,
    data_folders,
    describe_alike,
    describe_odd_one,
    describe_subfolders,
    describe_without_images,
    holes,
    is_wrapper,
    listing,
    refuse_masks,
    refuse_twins,
    without_thumbnails,
)
from pawtune.data_pipeline.splitting.folder_tree import (
    Folder,
    is_system_folder,
    may_be_image,
    read_tree,
)
from pawtune.data_pipeline.splitting.label_tables.label_places import labels_hint
from pawtune.data_pipeline.splitting.split_names import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    is_unlabelled_name,
    splits_of_names,
)

EXPECTED = (
    "expected ROOT/<class>/<images> or ROOT/train/<class>/<images> beside ROOT/validation/<class>"
)
SHOWN_FILES = 20  # that are opened to say what is there, where no images are
UNLABELLED = "unlabelled, left for `pawtune predict`"


@dataclass(frozen=True)
class Reject:
    """A file that is left out. path: relative to the root, posix."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A regular file with a label, not yet opened. split: None where it is ours to decide."""

    path: str
    label: str
    split: str | None
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Layout:
    """What a root folder holds.

    name: the splits that were given, such as "train_validation"; "classes" where none was.
    notes: a sentence for each thing that was understood and is not obvious.
    """

    name: str
    class_names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose files are of one class."""

    folder: Folder
    label: str
    split: str | None


def read_layout(root: Path) -> Layout:
    """Walks a root folder and recognises its layout; opens a few files, and only to refuse it.

    Raises:
        DataError: no such folder, no class folders, one class only, an unknown structure.
    """
    if not root.exists():
        raise DataError(f"no such folder: {shown(root)}")
    if not root.is_dir():
        raise DataError(f"{shown(root)} is a file; give a folder of class folders")
    return _Reading(root, read_tree(root)).layout()


def layout_name(splits: Iterable[str | None]) -> str:
    """The name of a layout in which these splits were given."""
    given = set(splits)
    return "_".join(split for split in SPLITS if split in given) or "classes"


class _Reading:
    """One reading of a tree; collects notes on the way."""

    def __init__(self, root: Path, tree: Folder) -> None:
        self._root = root
        self._tree = without_thumbnails(tree)
        self._notes: list[str] = []
        self._unlabelled: list[str] = []

    def layout(self) -> Layout:
        classes = self._find_classes()
        self._check_names(classes)
        refuse_masks(shown(self._root), [found.folder for found in classes])
        self._notes += describe_subfolders([found.folder for found in classes])
        candidates, rejects = self._sort_files(classes)
        names = tuple(sorted({found.label for found in classes}))
        self._notes += describe_without_images(self._tree, [found.folder for found in classes])
        if thumbnails := sum(reject.reason == THUMBNAILS for reject in rejects):
            self._notes.append(f"left out: {thumbnails:,} files {THUMBNAILS}")
        self._notes += describe_alike(names)
        self._notes += describe_odd_one(
            {found.folder.name: found.folder for found in classes if not found.split}
        )
        name = layout_name(found.split for found in classes)
        return Layout(name, names, tuple(candidates), tuple(rejects), tuple(self._notes))

    def _find_classes(self) -> list[ClassFolder]:
        """Goes down from the root to where splits or classes are."""
        top = self._tree
        while True:
            filled, empty = data_folders(top)
            splits = splits_of_names([*filled, *empty])
            if self._are_splits(top, splits, filled, empty):
                return self._classes_of_splits(top, splits, filled)
            if len(filled) != 1 or empty or holes(top):
                break
            (only,) = filled.values()
            if only.own_images or not data_folders(only)[0]:
                break
            top = only
        if top.path:
            self._notes.append(f"the class folders were found in {shown(top.path)}")
        return self._classes_of_folder(top, filled, empty, splits)

    def _are_splits(
        self,
        top: Folder,
        splits: dict[str, str],
        filled: dict[str, Folder],
        empty: dict[str, Folder],
    ) -> bool:
        """A lone `train` may be a class (of vehicles, say): another split must be beside it."""
        others = [name for name in (*filled, *empty) if name not in splits]
        if len(splits) < 2 or (others and TRAIN not in splits.values()):
            return False
        if not any(filled[name].folders for name in splits if name in filled):
            if others or not filled:
                return False
            name = max(splits, key=lambda name: filled[name].num_images if name in filled else 0)
            raise self._flat(name, filled.get(name, top))
        if TRAIN not in splits.values():
            raise DataError(
                f"{self._at(top)}: found {listing(splits)}, but no train folder; add it, or give a "
                "folder of class folders to have splits made"
            )
        return True

    def _classes_of_splits(
        self, top: Folder, splits: dict[str, str], filled: dict[str, Folder]
    ) -> list[ClassFolder]:
        self._check_holes(top, beside=splits)
        splits = self._without_empty(top, splits)
        inner = {name: self._unwrapped(top.folders[name]) for name in splits}
        known = {
            class_name(label)
            for name, folder in inner.items()
            if splits[name] == TRAIN
            for label in data_folders(folder)[0]
        }
        for name, folder in list(inner.items()):
            labels = {class_name(label) for label in (*data_folders(folder)[0],)}
            alone = len(labels) == 1 and len(known) > 1 and not labels & known
            flat = not labels or is_wrapper(folder)
            if splits[name] == TEST and folder.num_images and (flat or alone):
                self._leave_for_predict(top.folders[name])
                del inner[name]
            elif flat and folder.num_images:
                train = next((f for n, f in inner.items() if splits[n] == TRAIN), None)
                raise self._flat(name, folder, train if len(known) > 1 else None)
        if Counter(splits[name] for name in inner).most_common(1)[0][1] > 1:
            raise DataError(
                f"{self._at(top)}: two folders for one split among {listing(inner)}; keep one"
            )
        if top.path:
            self._notes.append(f"the splits were found in {shown(top.path)}")
        self._leave_others(top, splits, filled, known)
        for folder in inner.values():
            self._check_holes(folder)
        self._check_same_classes(
            {name: set(map(class_name, all_data_folders(folder))) for name, folder in inner.items()}
        )
        several = len(inner) > 1
        if not several:
            self._notes.append(
                f"{listing(inner)} is the only split with labels: it is split in three"
            )
        return [
            ClassFolder(folder, class_name(label), splits[name] if several else None)
            for name, holder in inner.items()
            for label, folder in all_data_folders(holder).items()
        ]

    def _without_empty(self, top: Folder, splits: dict[str, str]) -> dict[str, str]:
        """The splits that hold images; people make `test` before they have any."""
        empty = [name for name in splits if not top.folders[name].num_images]
        for name in empty:
            self._check_holes(top.folders[name])
            if splits[name] == TRAIN:
                raise DataError(
                    f"{self._at(top)}: the train folder must hold images, but {shown(name)} holds "
                    "none; put its class folders there, or give a folder that has them"
                )
            self._leave_empty(top.folders[name])
        return {name: split for name, split in splits.items() if name not in empty}

    def _leave_empty(self, folder: Folder) -> None:
        self._notes.append(f"{shown(folder.path)} holds no images; it is as if it were not there")

    def _unwrapped(self, folder: Folder) -> Folder:
        """Goes down to the class folders, where a split wraps them in folders of their own."""
        while True:
            filled, empty = data_folders(folder)
            if len(filled) != 1 or empty or folder.own_images:
                return folder
            (only,) = filled.values()
            if only.own_images or not data_folders(only)[0]:
                return folder
            folder = only

    def _leave_for_predict(self, folder: Folder) -> None:
        self._unlabelled.append(folder.path)
        self._notes.append(
            f"{shown(folder.path)}: {folder.num_images:,} images in no class folder; {UNLABELLED}"
        )

    def _leave_others(
        self, top: Folder, splits: dict[str, str], filled: dict[str, Folder], known: set[str]
    ) -> None:
        for name, folder in filled.items():
            if name in splits:
                continue
            if len(known & {class_name(label) for label in folder.folders}) > 1:
                raise DataError(
                    f"{self._at(top)}: {shown(name)} holds the class folders of {listing(splits)}, "
                    "but its name is no split's; rename it to train, validation or test, or move "
                    "it away"
                )
            self._notes.append(
                f"left out: {shown(folder.path)} ({folder.num_images:,} images), which is none of "
                "the splits"
            )

    def _check_same_classes(self, classes: dict[str, set[str]]) -> None:
        first, *others = classes
        for other in others:
            missing = sorted(classes[first] ^ classes[other])
            if missing:
                name = missing[0]
                has, lacks = (first, other) if name in classes[first] else (other, first)
                refuse_twins(shown(self._root), (has, name), lacks, classes[lacks] - classes[has])
                raise DataError(
                    f"{shown(self._root)}: every split must have the same class folders; {name!r} "
                    f"is in {shown(has)} and not in {shown(lacks)} ({len(missing)} such); add it, "
                    "or remove it from the other"
                )

    def _classes_of_folder(
        self,
        top: Folder,
        filled: dict[str, Folder],
        empty: dict[str, Folder],
        splits: dict[str, str],
    ) -> list[ClassFolder]:
        classes = {**filled, **empty}
        if not filled:
            raise self._no_classes(top)
        self._check_holes(top)
        if is_wrapper(top):
            (name,) = filled
            raise self._flat(name, filled[name])
        if len(classes) > 2:  # a folder that is no class leaves two
            for name, split in splits.items():
                flat = name in filled and not filled[name].folders
                if name in empty and len(classes) > 2:
                    self._leave_empty(classes.pop(name))
                if split == TEST and flat and len(classes) > 2:
                    self._leave_for_predict(classes.pop(name))
                elif split == VALIDATION and flat:
                    raise self._flat(name, filled[name])
            for name in list(filled):
                if len(classes) > 2 and is_unlabelled_name(name) and name in classes:
                    self._leave_for_predict(classes.pop(name))
        if len(classes) < 2:
            raise self._one_class(top, next(iter(classes)))
        inside = self._splits_inside(top, classes)
        if inside:
            return inside
        refuse_masks(shown(self._root), list(classes.values()))
        check_structure(self._at(top), classes)
        return [ClassFolder(folder, class_name(name), None) for name, folder in classes.items()]

    def _splits_inside(self, top: Folder, classes: dict[str, Folder]) -> list[ClassFolder]:
        """Class folders that hold splits: cat/train, cat/test, dog/train, dog/test."""
        found = []
        given: dict[str, list[str]] = {}
        for label, folder in classes.items():
            inner = data_folders(folder)[0]
            splits = splits_of_names(inner)
            whole = not folder.own_images and len(splits) == len(inner)
            given[label] = sorted(splits.values()) if whole and TRAIN in splits.values() else []
            found += [ClassFolder(inner[n], class_name(label), s) for n, s in splits.items()]
        usual = max(given, key=lambda label: len(given[label]))
        if len(given[usual]) < 2:
            return []
        for other in given:
            if given[other] == given[usual]:
                continue
            raise DataError(
                f"{self._at(top)}: every class folder must hold the same splits, but "
                f"{shown(usual)} holds {listing(given[usual])} and {shown(other)} "
                f"{listing(given[other]) or 'none'}; give it the same, or use train, validation "
                "and test folders of class folders"
            )
        if len(set(given[usual])) < len(given[usual]):
            return []
        # fold1/train/cat, fold2/train/cat: folds, or sets beside each other, are no classes.
        held = {label: Folder(folder.path) for label, folder in classes.items()}
        for label, folder in classes.items():
            for part in folder.folders.values():
                held[label].folders.update(data_folders(part)[0])
        check_structure(self._at(top), held)
        self._notes.append("the splits were found inside the class folders")
        return found

    def _check_names(self, classes: Sequence[ClassFolder]) -> None:
        for found in classes:
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in found.label):
                raise DataError(
                    f"{shown(self._root)}: the name of class folder {found.label!r} must be "
                    "printable UTF-8; rename it"
                )
        names = {found.label for found in classes}
        if len(names) == 1:
            raise self._one_class(self._tree, next(iter(names)))

    def _check_holes(self, folder: Folder, beside: Iterable[str] = ()) -> None:
        """A class folder or split that cannot be entered must not be left out without a message.

        beside: names of splits, where another must be one to count.
        """
        for hole in holes(folder):
            name = hole.path.rpartition("/")[2]
            if beside and name not in splits_of_names([*beside, name]):
                continue
            kind = "split" if beside else "class folder"
            raise DataError(
                f"{shown(self._root)}: every {kind} must be readable, but {shown(hole.path)} "
                f"is not ({hole.fault}); mount or restore what it stands for, or remove it"
            )

    def _flat(self, name: str, folder: Folder, train: Folder | None = None) -> DataError:
        """Images without class folders. train: a folder that has some, to be given alone."""
        alone = f", or give {shown(self._root / train.path)} alone with --data" if train else ""
        return self._stand_ins(self._tree, folder) or DataError(
            f"{shown(self._root)}: {shown(name)} holds {folder.num_images:,} images and no class "
            f"folders{labels_hint(self._tree, folder)}; {EXPECTED}, or give the labels with "
            f"--labels FILE.csv{alone}"
        )

    def _no_classes(self, top: Folder) -> DataError:
        if refusal := self._stand_ins(top, top):
            return refusal
        if top.num_images:
            return DataError(
                f"{self._at(top)}: no class folders, but {top.num_images:,} images"
                f"{labels_hint(self._tree, top)}; {EXPECTED}, or give the labels with "
                "--labels FILE.csv"
            )
        files = list(top.all_found())
        fault = f" ({files[0].fault})" if files and files[0].fault else ""
        seen = f", of {len(files):,} files such as {shown(files[0].path)}{fault}" if files else ""
        return DataError(f"{self._at(top)}: no class folders with images{seen}; {EXPECTED}")

    def _one_class(self, top: Folder, name: str) -> DataError:
        only = top.folders.get(name, top)
        if refusal := self._stand_ins(top, only):
            return refusal
        inner = only.folders if only is not top else {}
        hint = f"; did you mean {shown(self._root / top.path / name)}?" if len(inner) > 1 else ""
        if hidden := [other for other in top.folders if is_system_folder(other)]:
            hint += f" (hidden and system folders are none: {listing(hidden)})"
        if not hint and (place := labels_hint(self._tree, only)):
            hint = f", or the labels with --labels FILE.csv{place}"
        return DataError(
            f"{self._at(top)}: one class only ({name!r}); at least 2 class folders are needed{hint}"
        )

    def _stand_ins(self, top: Folder, folder: Folder) -> DataError | None:
        """A refusal that says what is there in place of images, if a file shows it."""
        files = [found.path for found in folder.all_found() if not found.fault]
        images = [path for path in files if may_be_image(path)]
        for path in images[:1] or files[:SHOWN_FILES]:
            try:
                with (self._root / path).open("rb") as file:
                    seen = stand_in(path, file.read(SEEN_BYTES))
            except OSError:
                continue
            if seen:
                kind, remedy = seen
                return DataError(
                    f"{self._at(top)}: no class folders with images, but {len(files):,} files such "
                    f"as {shown(path)}, {kind}; {remedy}"
                )
        return None

    def _sort_files(self, classes: Sequence[ClassFolder]) -> tuple[list[Candidate], list[Reject]]:
        candidates = []
        rejects = []
        taken = set()
        for found in classes:
            taken.add(found.folder.path)
            for item in found.folder.all_found():
                if item.fault is not None:
                    rejects.append(Reject(item.path, item.fault))
                    continue
                candidates.append(
                    Candidate(item.path, found.label, found.split, item.size, item.modified_ns)
                )
        given = any(found.split for found in classes)
        self._reject_rest(self._tree, taken, rejects, given)
        return candidates, rejects

    def _reject_rest(
        self, folder: Folder, taken: set[str], rejects: list[Reject], given: bool
    ) -> None:
        if folder.path in taken:
            return
        reason = "not in a class folder"
        top = folder.path.partition("/")[0]
        if any(f"{folder.path}/".startswith(f"{path}/") for path in self._unlabelled):
            reason = UNLABELLED
        elif given and not any(f"{path}/".startswith(f"{top}/") for path in taken):
            reason = "outside the train, validation and test folders"
        for item in (*folder.files, *folder.skipped):
            rejects.append(Reject(item.path, item.fault or reason))
        for inner in folder.folders.values():
            self._reject_rest(inner, taken, rejects, given)

    def _at(self, folder: Folder) -> str:
        return shown(self._root / folder.path)
