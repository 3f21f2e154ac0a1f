"""images.decode: kinds of files, beside those of `hostile_files`; resizing equals Keras'."""

import hashlib
import os
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import (
    Decoding,
    decode_split,
    open_image,
    resize,
    resize_bilinear,
)
from tests.image_files import decode_image, picture, write_image


@dataclass(frozen=True)
class Entry:
    path: str
    sha256: str
    decoding: Decoding = Decoding()


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_sixteen_bit_greyscale_is_scaled_to_eight(tmp_path: Path) -> None:
    values = np.full((8, 8), 257 * 40, np.uint16)
    values[0, :3] = (0, 65535, 257 * 200 + 129)
    decoded = decode_image(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert decoded[0, :4, 0].tolist() == [0, 255, 201, 40]


def test_alpha_is_composed_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[0, :, 3] = 255
    rgba[1, :, 3] = 51
    decoded = decode_image(saved(tmp_path / "a.png", Image.fromarray(rgba)))
    assert decoded[:3, 0, 0].tolist() == [0, 204, 255]
    grey_alpha = Image.new("LA", (8, 8), (0, 0))
    assert decode_image(saved(tmp_path / "b.png", grey_alpha)).min() == 255


def test_palette_is_converted_and_its_transparency_composed_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert decode_image(saved(tmp_path / "a.png", palette))[0, 0].tolist() == [200, 100, 50]
    clear = saved(tmp_path / "b.png", palette, transparency=1)
    assert decode_image(clear)[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg_is_converted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red, green, blue = decode_image(path)[8, 8].tolist()
    assert red > 240
    assert green < 15
    assert blue < 15


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    path = saved(tmp_path / "a.png", Image.fromarray(picture(3)), exif=exif)
    np.testing.assert_array_equal(decode_image(path), np.rot90(picture(3), -1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "raw camera file, a format that is not read"),
        (b"\0\0\0\x18ftypcrx " + bytes(99), "raw camera file, a format that is not read"),
        (b"RIFF\0\0\0\0AVI LIST", "video, a format that is not read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript, a format that is not"),
    ],
)
def test_what_is_no_image_is_rejected(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.jpg: ({reason})"):
        decode_image(path)


def test_bomb_is_rejected_before_it_is_decoded(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("1", (10_001, 10_001)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="more than 100 megapixels"):
        decode_image(path)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_raw_files_of_cameras_are_rejected(tmp_path: Path, tags: dict[int, object]) -> None:
    """NEF, ARW and DNG are TIFF, whose first picture is a thumbnail."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory[tag] = value
    path = tmp_path / "a.nef"
    Image.fromarray(picture(1)).save(path, "TIFF", tiffinfo=directory)
    with pytest.raises(DataError, match="a raw file of a camera, of which only the small picture"):
        decode_image(path)


def test_tiff_in_which_0_is_white(tmp_path: Path) -> None:
    """Pillow inverts it for 8 bits, and not for 16."""
    grey = picture(1)[:, :, 0]
    for dtype in (np.uint8, np.uint16):
        path = tmp_path / f"{dtype.__name__}.tiff"
        Image.fromarray(grey.astype(dtype)).save(path)
        content = bytearray(path.read_bytes())
        at = content.index(struct.pack("<HHI", 262, 3, 1)) + 8
        content[at : at + 2] = bytes(2)
        path.write_bytes(content)
    assert np.array_equal(decode_image(tmp_path / "uint8.tiff")[:, :, 0], 255 - grey)
    with pytest.raises(DataError, match="16-bit TIFF in which 0 is white, .*: save it with 0 as b"):
        decode_image(tmp_path / "uint16.tiff")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.png: cannot be read: No such file"):
        decode_image(tmp_path / "gone.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: not a regular file"):
        decode_image(tmp_path / "a.jpg")


def test_resize_of_two_by_four_by_hand() -> None:
    row = np.array([[0, 10, 20, 30], [100, 110, 120, 130]], np.uint8)
    image = np.repeat(row[:, :, None], 3, axis=2)
    # Half-pixel centres: column 0 lies between source columns 0 and 1, column 1 between 2 and 3.
    assert resize_bilinear(image, 2)[:, :, 0].tolist() == [[5, 25], [105, 125]]
    assert resize_bilinear(image, 1)[0, 0].tolist() == [65, 65, 65]


def test_resize_equals_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    random = np.random.default_rng(0)
    for height, width, size in [(37, 53, 16), (37, 53, 160), (160, 160, 160), (8, 301, 33)]:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = np.rint(tf.image.resize(image, (size, size)).numpy())
        np.testing.assert_array_equal(resize_bilinear(image, size), expected)


def shard(root: Path) -> list[Entry]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        Entry(path.relative_to(root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in paths
    ]


def test_decode_split_equals_keras_within_one_grey_level(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    for number in range(4):
        write_image(tmp_path / "ab"[number % 2] / f"{number}.png", number)
    batch = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(20, 20), batch_size=None, shuffle=False, verbose=False
    )
    expected = np.stack([image.numpy() for image, _ in batch])
    ours = decode_split(tmp_path, shard(tmp_path), 20)
    assert ours.shape == (4, 20, 20, 3)
    assert np.abs(ours - expected).max() <= 0.5


def test_real_photos_equal_keras_but_for_the_jpeg_decoder(test_data: Path) -> None:
    """TensorFlow decodes JPEG with the fast, less exact transform; with the exact one it agrees."""
    tf = pytest.importorskip("tensorflow")
    with zipfile.ZipFile(test_data / "cats_and_dogs_filtered.zip") as photos:
        for name in [name for name in photos.namelist() if name.endswith(".jpg")][::500]:
            data = photos.read(name)
            exact = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
            fast = tf.io.decode_jpeg(data, channels=3)
            ours = resize_bilinear(np.asarray(open_image(data)), 160)
            assert np.abs(tf.image.resize(exact, (160, 160)).numpy() - ours).max() <= 1
            assert np.abs(tf.image.resize(fast, (160, 160)).numpy() - ours).mean() <= 2


@pytest.mark.parametrize("shape", [(96, 64), (50, 71), (33, 400), (3000, 17)])
def test_area_is_the_mean_of_what_a_pixel_covers(shape: tuple[int, int]) -> None:
    """Of pixels that are repeated as often as the result has pixels, each covers whole ones."""
    size = 32
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = image.astype(np.float64)
    for axis, side in enumerate(shape):
        if side > size:
            fine = np.repeat(expected, size, axis=axis)
            expected = np.stack([p.mean(axis=axis) for p in np.split(fine, size, axis)], axis)
    if shape[1] > size:  # else that side grows
        assert np.abs(resize(image, size, "area") - expected).max() <= 0.501
    assert (resize(np.full((*shape, 3), 77, np.uint8), size, "area") == 77).all()


def test_area_enlarges_as_bilinear_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(image, 32, "area"), resize_bilinear(image, 32))


def test_a_large_image_is_averaged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    whole = resize(image, 16, "area")
    monkeypatch.setattr("pawtune.data_pipeline.images.decode.MAX_FLOATS", 1000)
    np.testing.assert_array_equal(resize(image, 16, "area"), whole)
    monkeypatch.setattr("pawtune.data_pipeline.images.decode.MAX_FLOATS", 10)  # parts of a column
    np.testing.assert_array_equal(resize(image, 16, "area"), whole)


def test_decode_split_names_the_file_that_changed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 0)
    entries = shard(tmp_path)
    assert decode_split(tmp_path, entries[:0], 16).shape == (0, 16, 16, 3)
    write_image(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="a.png: changed since the manifest was made"):
        decode_split(tmp_path, entries, 16)


def test_pillow_is_quiet_while_it_decodes_and_the_users_filters_stay(tmp_path: Path) -> None:
    from pawtune.data_pipeline.images.pillow_warnings import quiet_pillow

    def warn() -> None:
        warnings.warn_explicit("a broken EXIF block", UserWarning, "x.py", 1, module="PIL.Image")

    before = list(warnings.filters)
    decoding, done = threading.Event(), threading.Event()

    def decode() -> None:
        with quiet_pillow():
            decoding.set()
            done.wait(10)

    thread = threading.Thread(target=decode)
    thread.start()
    decoding.wait(10)
    with quiet_pillow():
        warn()
    warn()  # the other thread still decodes
    done.set()
    thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="EXIF"):
        warn()


def test_an_import_sets_no_filter_of_warnings() -> None:
    probe = (
        "import warnings, PIL.Image, numpy, pydantic; before = list(warnings.filters)\n"
        "import pawtune.data_pipeline.images.decode\nassert warnings.filters == before"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)
