"""data_pipeline.preview: files that show the right images."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.pictures import Change
from pawtune.data_pipeline.images.preview import (
    ANGLES_DEG,
    FLIPS,
    OTHERS,
    augmentation_grids,
    sample_grid,
)
from pawtune.data_pipeline.splitting.build import build_manifest
from tests.image_files import decode_image, picture, write_classes


def solid_classes(root: Path, colours: dict[str, str]) -> Path:
    """Classes of one colour each, with a little texture so that no two images are alike."""
    write_classes(root, dict.fromkeys(colours, 8))
    for label, colour in colours.items():
        for path in (root / label).iterdir():
            image = Image.open(path)
            Image.blend(Image.new("RGB", image.size, colour), image, 0.15).save(path)
    return root


def share_near(grid: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    return float((np.abs(grid.astype(int) - colour).max(axis=-1) < 60).mean())


def test_sample_grid_has_a_row_for_each_class(tmp_path: Path) -> None:
    root = solid_classes(tmp_path / "data", {"$blue_class$": "blue", "red": "red", "日本": "lime"})
    manifest = build_manifest(root)
    path = sample_grid(manifest, tmp_path / "out" / "grid.png", columns=4, size=32)
    grid = decode_image(path)
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]
    height = grid.shape[0]
    colours = {"blue": (0, 0, 255), "red": (255, 0, 0), "lime": (0, 255, 0)}
    rows = {name: np.argwhere(np.abs(grid.astype(int) - colour).max(axis=-1) < 60)[:, 0]
            for name, colour in colours.items()}  # fmt: skip
    assert rows["blue"].max() < rows["red"].min()
    assert rows["red"].max() < rows["lime"].min()
    assert rows["lime"].max() < height
    # Four squares of 1.45 inches at 130 dots each.
    assert len(rows["blue"]) == pytest.approx(4 * (1.45 * 130) ** 2, rel=0.1)


def test_many_classes_are_cut_and_the_title_says_so(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {f"class {letter}": 3 for letter in "abcde"})
    manifest = build_manifest(tmp_path / "data")
    full = decode_image(sample_grid(manifest, tmp_path / "full.png", size=16))
    cut = decode_image(sample_grid(manifest, tmp_path / "cut.png", size=16, max_classes=2))
    assert cut.shape[1] == full.shape[1]
    assert cut.shape[0] < full.shape[0] - 500


def test_missing_image_leaves_no_file(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"a": 3, "b": 3})
    manifest = build_manifest(root)
    (root / manifest.split("train")[0].path).unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        sample_grid(manifest, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_augmentations_are_asked_for_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Change] = []

    def paint(image: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
        asked.append(change)
        return np.full_like(image, (0, 0, 255) if change.flip == "vertical" else (255, 0, 0))

    monkeypatch.setattr("pawtune.data_pipeline.images.preview.changed", paint)
    flips, rotations, others = augmentation_grids(picture(0), tmp_path / "out")
    turns = [Change(angle=math.radians(angle)) for angle in ANGLES_DEG]
    assert asked == [*(Change(flip=flip) for flip in FLIPS), *turns, *OTHERS.values()]
    grid = decode_image(flips)
    assert share_near(grid, (255, 0, 0)) == pytest.approx(
        3 * share_near(grid, (0, 0, 255)), rel=0.1
    )
    assert share_near(decode_image(rotations), (0, 0, 255)) == 0
    assert share_near(decode_image(others), (255, 0, 0)) > 0.3
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["flips.png", "others.png", "rotations.png"]
