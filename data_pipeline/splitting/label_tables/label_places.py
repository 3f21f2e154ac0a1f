"""Where labels may be, if not in folders: for the refusal of images without class folders."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from pawtune.data_pipeline.safe_files import shown
from pawtune.data_pipeline.splitting.folder_tree import Folder, Found, may_be_image

TABLES = {".csv", ".tsv"}
NO_TABLES = {".json", ".jsonl", ".mat", ".txt", ".xlsx", ".xml"}
LABEL_WORDS = re.compile(r"(?i)label|annot|class|meta|train|val|test|solution")
LABELLED_NAME = re.compile(r"(?P<label>[^\W\d_]+(?:[ _-][^\W\d_]+)*)[ ._-]*\(?\d+\)?")
SHOWN_LABELS = 4


def labels_hint(top: Folder, images: Folder) -> str:
    """Where the labels of images without class folders may be, in parentheses; or "".

    Args:
        top: the data's folder, in which a table may lie.
        images: the folder of the images.
    """
    paths = [found.path for found in top.all_found() if not found.fault]
    names = [PurePosixPath(path) for path in paths if "submission" not in path.lower()]
    tables = [name for name in names if name.suffix.lower() in TABLES]
    if tables:
        return f" (labels may be in {shown(tables[0])})"
    if labels := _labels_of_names(images):
        return (
            f" (file names begin with {', '.join(labels)}: if these are the classes, move the "
            "files into folders of these names)"
        )
    others = [name for name in names if name.suffix.lower() in NO_TABLES]
    if found := _beside_each(images, others) or next(
        (name for name in others if LABEL_WORDS.search(name.name)), None
    ):
        return f" (labels may be in {shown(found)}, which is no CSV table: write one)"
    return ""


def _beside_each(images: Folder, others: Iterable[PurePosixPath]) -> PurePosixPath | None:
    """The first of the files that are called like the images, as those of boxes are."""
    stems = {PurePosixPath(found.path).stem for found in _images(images)}
    alike = [name for name in others if name.stem in stems]
    return alike[0] if 2 * len(alike) > len(stems) else None


def _labels_of_names(images: Folder) -> list[str]:
    """What files' names begin with (cat.0.jpg, dog.0.jpg); [] where that seems to be no label."""
    stems = [PurePosixPath(found.path).stem for found in _images(images)]
    matches = [LABELLED_NAME.fullmatch(stem) for stem in stems]
    counts = Counter(match["label"] for match in matches if match)
    if len(counts) < 2 or counts.total() < len(stems) or min(counts.values()) < 2:
        return []
    more = [f"and {len(counts) - SHOWN_LABELS} more"] if len(counts) > SHOWN_LABELS else []
    return [*(shown(label) for label in sorted(counts)[:SHOWN_LABELS]), *more]


def _images(folder: Folder) -> list[Found]:
    return [found for found in folder.all_found() if not found.fault and may_be_image(found.path)]
