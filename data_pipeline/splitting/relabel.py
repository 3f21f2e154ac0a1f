"""Corrections of labels, as `pawtune audit` saves them: other labels, and images to leave out.

    path,sha256,decision,label
    cats/12.jpg,0a1b…,relabel,dogs
    dogs/7.jpg,9c3d…,drop,

The images' folder is never changed: corrections are applied while a manifest is made.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import read_regular, shown
from pawtune.data_pipeline.splitting.folder_layout import Layout, Reject
from pawtune.data_pipeline.splitting.manifest_io import unescape

COLUMNS = ("path", "sha256", "decision", "label")
DECISIONS = ("keep", "relabel", "drop")
MAX_RELABEL_BYTES = 2**28
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Correction:
    """What becomes of one image. decision: of DECISIONS. label: the new one, where there is one."""

    path: str
    sha256: str
    decision: str
    label: str


def read_corrections(file: Path) -> dict[str, Correction]:
    """The corrections of a file, by path.

    Raises:
        DataError: it cannot be read, or a row is not what it must be.
    """
    try:
        text = read_regular(file, MAX_RELABEL_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--relabel must be a CSV file, received {shown(file)}: {error}") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise DataError(
            f"{shown(file)}: the first line must be {','.join(COLUMNS)}, received "
            f"{shown(','.join(rows[0]) if rows else '')!r}; save it with `pawtune audit`'s page"
        )
    found: dict[str, Correction] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        correction = _correction(file, line, row)
        if found.setdefault(correction.path, correction) != correction:
            raise DataError(f"{shown(file)}: {shown(correction.path)!r} has two decisions")
    return found


def _correction(file: Path, line: int, row: Sequence[str]) -> Correction:
    if len(row) == len(COLUMNS):
        path, digest, decision, label = row
        if (
            decision in DECISIONS
            and _HASH.fullmatch(digest)
            and (decision == "relabel") <= bool(label)
        ):
            return Correction(unescape(path), digest, decision, label)
    raise DataError(
        f"{shown(file)}: line {line} must hold a path, its sha256, keep, relabel or drop, and to "
        f"relabel the new label; received {shown(','.join(row))!r}"
    )


def correct_layout(layout: Layout, corrections: Mapping[str, Correction]) -> Layout:
    """A layout with other labels, and without the images to drop.

    Raises:
        DataError: an image is not there, or a label is none of its classes.
    """
    known = {candidate.path for candidate in layout.candidates}
    for path, correction in corrections.items():
        if path not in known:
            raise DataError(
                f"every image of --relabel must be among the data, received {shown(path)!r}, "
                "which is not; give the data that the audit looked at"
            )
        if correction.decision == "relabel" and correction.label not in layout.class_names:
            raise DataError(
                f"a label of --relabel must be one of the classes ({', '.join(layout.class_names)}"
                f"), received {shown(correction.label)!r} for {shown(path)}"
            )
    decided = {path: c for path, c in corrections.items() if c.decision != "keep"}
    dropped = {path for path, c in decided.items() if c.decision == "drop"}
    candidates = [
        replace(candidate, label=decided[candidate.path].label)
        if candidate.path in decided
        else candidate
        for candidate in layout.candidates
        if candidate.path not in dropped
    ]
    changed = len(decided) - len(dropped)
    note = f"labels corrected by --relabel: {changed} images relabelled, {len(dropped)} dropped"
    return replace(
        layout,
        candidates=tuple(candidates),
        rejects=(*layout.rejects, *(Reject(path, "dropped by --relabel") for path in dropped)),
        notes=(*layout.notes, note),
    )


def check_contents(corrections: Mapping[str, Correction], hashes: Mapping[str, str]) -> None:
    """Refuses corrections of images whose content is another one now.

    Args:
        corrections: Corrections by path.
        hashes: sha256 of the images that can be read, by path.

    Raises:
        DataError: with the first such image.
    """
    for path, correction in corrections.items():
        if hashes.get(path, correction.sha256) != correction.sha256:
            raise DataError(
                f"an image of --relabel must be the one that was looked at, and {shown(path)} has "
                "other content now; run `pawtune audit` again"
            )
