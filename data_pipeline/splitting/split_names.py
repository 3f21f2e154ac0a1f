"""Which split a folder's name, or a word in a column, stands for; which folders are no data.

Names are read as words, in any case and spelling: `Validation_Data`, `train-set`, `TrainImages`,
`valid2`, `seg_test` beside `seg_train`.
"""

import re
from collections.abc import Iterable

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
WORDS = {
    "train": TRAIN, "training": TRAIN, "trn": TRAIN, "trainval": TRAIN,
    "validation": VALIDATION, "validate": VALIDATION, "valid": VALIDATION, "val": VALIDATION,
    "dev": VALIDATION, "devel": VALIDATION, "development": VALIDATION,
    "test": TEST, "testing": TEST, "tst": TEST,
}  # fmt: skip
# Validation where nothing else is, else test.
EITHER = ("eval", "evaluation", "holdout")
FILLERS = (
    "set", "sets", "data", "dataset", "split", "folder", "dir", "images", "image", "imgs", "img",
    "photos", "pictures", "pics", "samples", "jpeg", "jpg", "png", "raw", "all", "new", "final",
    "the", "of",
)  # fmt: skip
_GLUED = re.compile(rf"({'|'.join([*WORDS, *EITHER])})({'|'.join(FILLERS)})")

EXTRA_FOLDERS = {
    "annotation", "annotations", "archive", "archives", "assets", "bin", "checkpoint",
    "checkpoints", "code", "config", "configs", "csv", "csvs", "doc", "docs", "documentation",
    "download", "downloads", "figures", "info", "json", "labels", "license", "licenses", "log",
    "logs", "meta", "metadata", "misc", "model", "models", "notebook", "notebooks", "notes",
    "output", "outputs", "paper", "papers", "readme", "results", "runs", "script", "scripts",
    "splits", "src", "temp", "tmp", "tools", "utils", "weights", "xml", "xmls", "zip", "zips",
}  # fmt: skip
MASK_WORDS = {
    "annotation", "annotations", "bbox", "contour", "contours", "groundtruth", "gt", "heatmap",
    "heatmaps", "label", "labels", "mask", "masks", "matte", "mattes", "seg", "segmentation",
    "segmentations", "segs", "trimap", "trimaps",
}  # fmt: skip
# What else is said of masks.
MASK_KINDS = {"binary", "class", "instance", "object", "semantic"}
# Of masks, those that are also things in a picture, and so may be a class.
MASK_THINGS = {"contour", "label", "mask", "matte"}
THUMBNAIL_WORDS = {"thumb", "thumbnail", "thumbnails", "thumbs"}
UNLABELLED_WORDS = {
    "inference", "pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "unsup",
    "unsupervised",
}  # fmt: skip
# Of subfolders that divide the images of one class.
PART_WORDS = {
    "adult", "aug", "augmented", "back", "bottom", "clean", "closeup", "color", "colour", "crop",
    "cropped", "crops", "day", "female", "flipped", "front", "full", "gray", "grey", "high",
    "indoor", "indoors", "inside", "ir", "juvenile", "large", "left", "low", "male", "night",
    "old", "orig", "original", "originals", "other", "outdoor", "outdoors", "outside", "part",
    "resized", "rgb", "right", "rotated", "side", "small", "summer", "top", "view", "winter",
    "young",
}  # fmt: skip


def words_of(name: str) -> list[str]:
    """A name's words in lower case, without digits.

    >>> words_of("TrainImages-2017"), words_of("valset"), words_of("JPEGImages")
    (['train', 'images'], ['val', 'set'], ['jpeg', 'images'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    glued = [_GLUED.fullmatch(word) for word in words]
    return [part for word, hit in zip(words, glued, strict=True)
            for part in (hit.groups() if hit else (word,))]  # fmt: skip


def split_of_name(name: str) -> str | None:
    """The split that a name stands for: one of SPLITS or EITHER; None for another name.

    >>> [split_of_name(name) for name in ("Validation_Data", "hold-out", "train station")]
    ['validation', 'holdout', None]
    """
    word, rest = _split_word(name)
    return WORDS.get(word, word) if word and not set(rest) - set(FILLERS) else None


def splits_of_names(names: Iterable[str]) -> dict[str, str]:
    """{name: split} of those that stand for a split, what else they say being the same in all.

    >>> splits_of_names(["seg_train", "seg_test", "seg_pred"])
    {'seg_train': 'train', 'seg_test': 'test'}
    """
    names = list(names)
    said = {name: _split_word(name) for name in names}
    rests = [tuple(rest) for word, rest in said.values() if word]
    found = {}
    for name, (word, rest) in said.items():
        if word and (not set(rest) - set(FILLERS) or rests.count(tuple(rest)) > 1):
            found[name] = WORDS.get(word, word)
    return resolve_either(found)


def resolve_either(found: dict[str, str]) -> dict[str, str]:
    """The same with `eval` and `holdout` as the split that is missing, validation first."""
    resolved = dict(found)
    for name, split in found.items():
        if split in EITHER:
            taken = set(resolved.values())
            resolved[name] = VALIDATION if VALIDATION not in taken else TEST
    return resolved


def _split_word(name: str) -> tuple[str | None, list[str]]:
    words = words_of(name)
    if ("hold", "out") in zip(words, words[1:], strict=False):
        words = [word for word in words if word not in ("hold", "out")] + ["holdout"]
    hits = [word for word in words if word in WORDS or word in EITHER]
    if len(hits) != 1:
        return None, words
    return hits[0], [word for word in words if word != hits[0]]


def is_mask_name(name: str) -> bool:
    """Whether a subfolder of a class is named as one of masks or annotations."""
    words = {word for word in words_of(name) if word not in FILLERS} - MASK_KINDS
    return bool(words) and not words - MASK_WORDS - {"ground", "truth"}


def is_mask_class_name(name: str) -> bool:
    """Whether a folder beside classes is named as one of masks, and not as a thing.

    >>> [is_mask_class_name(name) for name in ("masks", "mask", "ground_truth", "with_mask")]
    [True, False, True, False]
    """
    return is_mask_name(name) and not set(words_of(name)) <= MASK_THINGS


def is_thumbnail_name(name: str) -> bool:
    """Whether a folder is named as one of small copies of other images."""
    words = {word for word in words_of(name) if word not in FILLERS}
    return bool(words) and words <= THUMBNAIL_WORDS


def is_unlabelled_name(name: str) -> bool:
    """Whether a folder is named as one of images without labels (`unlabeled`, `to_predict`)."""
    words = {word for word in words_of(name) if word not in (*FILLERS, "to", "for")}
    return bool(words) and not words - UNLABELLED_WORDS


def is_part_name(name: str) -> bool:
    """Whether a subfolder divides a class (`front`, `2019`, `images`), and is no class itself.

    A number of one or two digits is more often a label.
    """
    if re.fullmatch(r"\d\d?", name):
        return False
    words = words_of(name)
    return all(word in PART_WORDS or word in FILLERS for word in words)
