"""Pictures of the data: a grid of samples, and one image under each kind of augmentation.

Images are shown as a model sees them: resized to a square, and changed as a model's are.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.images.pictures import Change, changed
from pawtune.data_pipeline.safe_files import replacing
from pawtune.data_pipeline.splitting.manifest import Manifest

FLIPS = ("none", "horizontal", "vertical", "horizontal_and_vertical")
ANGLES_DEG = (-90.0, -45.0, -20.0, -5.0, 5.0, 20.0, 45.0, 90.0)
OTHERS: Mapping[str, Change] = {
    "zoom -20%": Change(size=0.8),
    "zoom +20%": Change(size=1.2),
    "shift -15%": Change(shift=(0.15, 0.15)),
    "shift +15%": Change(shift=(-0.15, -0.15)),
    "brightness -20%": Change(brightness=-0.2),
    "brightness +20%": Change(brightness=0.2),
    "contrast -20%": Change(contrast=0.8),
    "contrast +20%": Change(contrast=1.2),
}
MAX_CLASSES = 24
CELL_INCHES = 1.45
DPI = 130
INK = "#22262b"
FAINT_INK = "#6b737c"


def sample_grid(
    manifest: Manifest,
    path: Path,
    *,
    columns: int = 8,
    size: int = 160,
    max_classes: int = MAX_CLASSES,
) -> Path:
    """Draws a row of training images for each class, with the class name and its count, as PNG.

    They are the first of the split, whose order depends on content: as good as random.

    Raises:
        DataError: an image is missing or changed; see decode_split.
    """
    names = manifest.class_names[:max_classes]
    counts = manifest.counts()["train"]
    entries = manifest.split("train")
    figure, axes = _grid(len(names), columns, left_inches=1.5, top_inches=0.55)
    for row, name in enumerate(names):
        chosen = [entry for entry in entries if entry.label == name][:columns]
        images = decode_split(Path(manifest.root), chosen, size)
        for column, image in enumerate(images):
            _show(axes[row][column], image)
        _name_row(axes[row][0], name, f"{counts[name]:,} images")
    shown, known = len(names), len(manifest.class_names)
    part = f", {shown} of {known} classes" if shown < known else ""
    _title(figure, f"{Path(manifest.root).name}: train{part}, at {size} x {size} px")
    return _save(figure, path)


def augmentation_grids(image: NDArray[np.uint8], folder: Path) -> tuple[Path, ...]:
    """Draws one image under each augmentation: flips.png, rotations.png and others.png.

    Args:
        image: (H, W, 3) uint8.
        folder: where to; made if missing.

    Returns:
        The files.
    """
    flips = {flip.replace("_", " "): Change(flip=flip) for flip in FLIPS}
    rotations = {f"{angle:+.0f}°": Change(angle=math.radians(angle)) for angle in ANGLES_DEG}
    turned = "Rotations (a rotation_factor of 0.1 draws from -36° to +36°)"
    factors = "zoom_factor, shift_factor, brightness_factor, contrast_factor"
    grids: tuple[tuple[str, str, Mapping[str, Change]], ...] = (
        ("flips.png", "Flips", flips),
        ("rotations.png", turned, rotations),
        ("others.png", factors, OTHERS),
    )
    files = []
    for name, title, changes in grids:
        rows = math.ceil(len(changes) / 4)
        figure, axes = _grid(rows, 4, top_inches=0.8, gap_inches=0.3)
        cells = [cell for row in axes for cell in row]
        for cell, (label, change) in zip(cells, changes.items(), strict=True):
            _show(cell, changed(image, change), label)
        _title(figure, title)
        files.append(_save(figure, folder / name))
    return tuple(files)


def _grid(
    rows: int,
    columns: int,
    *,
    left_inches: float = 0.12,
    top_inches: float,
    gap_inches: float = 0.08,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of square cells that are empty until something is shown in them."""
    width = left_inches + columns * (CELL_INCHES + 0.08) + 0.04
    height = top_inches + rows * (CELL_INCHES + gap_inches) + 0.04
    figure = Figure((width, height), dpi=DPI, facecolor="white")
    axes: list[list[Axes]] = []
    for row in range(rows):
        bottom = height - top_inches - row * (CELL_INCHES + gap_inches) - CELL_INCHES
        axes.append([])
        for column in range(columns):
            left = left_inches + column * (CELL_INCHES + 0.08)
            place = (
                left / width,
                bottom / height,
                CELL_INCHES / width,
                CELL_INCHES / height,
            )
            axes[row].append(figure.add_axes(place, frameon=False, xticks=[], yticks=[]))
    return figure, axes


def _show(cell: Axes, image: NDArray[np.uint8], label: str = "") -> None:
    cell.imshow(image, interpolation="lanczos", aspect="auto")
    cell.set_title(label, fontsize=8, color=FAINT_INK, pad=4, parse_math=False)


def _name_row(first_cell: Axes, name: str, detail: str) -> None:
    name = name if len(name) <= 20 else f"{name[:19]}…"
    for text, height, weight, colour in (
        (name, 0.56, "bold", INK),
        (detail, 0.40, "normal", FAINT_INK),
    ):
        first_cell.text(
            -0.07, height, text, transform=first_cell.transAxes, ha="right", va="center",
            fontsize=9, fontweight=weight, color=colour, parse_math=False,
        )  # fmt: skip


def _title(figure: Figure, text: str) -> None:
    inch = 1 / figure.get_figheight()
    left = 0.12 / figure.get_figwidth()
    figure.text(
        left, 1 - 0.28 * inch, text, fontsize=11, fontweight="bold", color=INK, va="center",
        parse_math=False,
    )  # fmt: skip


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary, warnings.catch_warnings():
        # A class name in a script that the font lacks is drawn as boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, format="png")
    return path
