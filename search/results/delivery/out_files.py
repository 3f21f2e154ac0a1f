"""One rule for every output file: an existing one is replaced only with --force."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.errors import UserError


def refuse_existing(targets: Sequence[Path], force: bool, beside: Sequence[Path] = ()) -> None:
    """Refuses existing files before any work, unless they may be replaced.

    Args:
        targets: The file to write.
        force: Whether to replace it. A folder is replaced only if it is a SavedModel.
        beside: Files of other names that are written with it.

    Raises:
        UserError: One exists, or is a device or pipe.
    """
    for target in (*targets, *beside):
        if not (target.exists() or target.is_symlink()):
            continue
        if target.is_dir() and not (force and (target / "saved_model.pb").is_file()):
            raise UserError(
                f"--out must be a name that is not in use, received the folder {shown(target)!r}; "
                "choose another (--force replaces files, and SavedModels)"
            )
        if target.exists() and not (target.is_dir() or target.is_file()):
            raise UserError(  # moving a file over /dev/null would take it from all programs
                f"--out must be a file, received {shown(target)!r}, a device or pipe; give the "
                "name of a file"
            )
        if not force and target in beside:
            raise UserError(
                f"--out names the files beside it too, received {shown(targets[0])!r}, whose card "
                f"{shown(target)!r} is there already; give another name, such as "
                f"{_other_stem(targets[0])}, or replace that with --force (in Python force=True)"
            )
        if not force:
            raise UserError(
                f"--out must be a name that is not in use, received {shown(target)!r}; choose "
                "another, or replace it with --force (in Python force=True)"
            )


def _other_stem(target: Path) -> str:
    """`pets-onnx.onnx` for `pets.onnx`: its card has a name of its own."""
    return shown(f"{target.stem}-{target.suffix[1:].lower()}{target.suffix}")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Within the block, an OSError is reported as that of a file which cannot be written.

    Raises:
        UserError: Of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--out must be a file that can be written, received {shown(out)!r}: "
            f"{error.strerror or error}; give another with --out"
        ) from error


@contextmanager
def parents_made(out: Path) -> Iterator[None]:
    """Makes the folders above a file; those it made go again, where nothing came of the file."""
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it was not made, or somebody put something there
                folder.rmdir()
        raise


def card_files(model_file: Path) -> tuple[Path, Path]:
    """A model's card, as JSON and as Markdown: beside the file, or in a SavedModel's folder."""
    if model_file.suffix == "":
        card = model_file / "model_card.json"
    elif model_file.name == "model.keras":  # a run's own
        card = model_file.with_name("model_card.json")
    else:
        card = model_file.with_suffix(".json")
    return card, card.with_suffix(".md")


def move_into_place(written: Path, out: Path) -> None:
    """Moves a file or folder over what may be there."""
    if os.path.lexists(out) and (out.is_dir() or written.is_dir()):
        shutil.move(out, written.with_name("replaced"))
    written.replace(out)
