"""Image files -> uint8 arrays, with one stated treatment for every kind of file.

=========================  ==================================================================
file                       treatment
=========================  ==================================================================
JPEG, PNG, BMP, GIF,       decoded by Pillow; other formats are rejected (some of Pillow's
WebP, TIFF, PPM, MPO,      readers start programs or fetch files). MPO: the first picture;
AVIF, JPEG 2000, ICO       ICO: the largest
HEIC                       decoded where pillow-heif is installed: pip install 'pawtune[heic]'
EXIF orientation           applied, so that pixels stand upright
greyscale, 1-bit           the grey value in all three channels
alpha channel, palette     composed on white (Keras drops the alpha channel, which shows
with transparency          whatever colour lay hidden under it)
palette, CMYK, YCbCr       converted to RGB by Pillow; colour profiles are not applied
16 bits a channel          greyscale scaled to 0..255 by the bits that the set uses (8, 10, 12,
                           14 or 16: scanners store 12 in 16). Pillow itself reads 16-bit colour
                           as 8-bit: rejected where no more than 12 bits are used
32-bit integer, float      rejected, no known range
animation, several pages   rejected
raw files of cameras       rejected, also those that are TIFF: their first picture is a thumbnail
16-bit TIFF, 0 is white    rejected: Pillow does not invert it
a side under 8 px          rejected: nothing to learn from
over 100 megapixels, or    rejected before a pixel is decoded: 300 MB of RGB is more than an
a file over 512 MiB        honest photo needs and what a decompression bomb looks like
truncated, corrupt, empty  rejected
=========================  ==================================================================
"""

import errno
import functools
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.formats import formats, unread_reason
from pawtune.data_pipeline.images.pillow_warnings import quiet_pillow
from pawtune.data_pipeline.safe_files import NOT_REGULAR, read_regular, shown

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Tags of TIFF. The lowest bit of the second says that a picture is a small copy of another.
DNG_VERSION, NEW_SUBFILE_TYPE, PHOTOMETRIC = 50706, 254, 262
GREY_BITS = (8, 10, 12, 14, 16)
MIN_SIDE_PX = 8
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 512 * 2**20
# Pictures of larger files are not counted: a GIF tells their number only to who goes through all,
# and one of 500 MiB can have tens of millions.
MAX_COUNTED_BYTES = 4 * 2**20
MAX_FLOATS = 2**22  # of an image at once where it is averaged: 100 megapixels would take 1.2 GB

Resizing = Literal["bilinear", "area"]
RESIZINGS: tuple[Resizing, ...] = ("bilinear", "area")
Converted = TypeVar("Converted")


class Decoding(NamedTuple):
    """What pixels depend on besides file and size.

    grey_bits: how many bits 16-bit greyscale images use, of GREY_BITS. resizing: see `resize`.
    """

    grey_bits: int = 16
    resizing: Resizing = "bilinear"


DEFAULT_DECODING = Decoding()


class ImageFile(Protocol):
    """What decode_split needs to know of an image; a ManifestEntry is one."""

    @property
    def path(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def decoding(self) -> Decoding: ...


def read_file(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        DataError: the file is empty, too large or cannot be read (the reason, without the name).
    """
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        plain = reason == NOT_REGULAR or error.errno == errno.EFBIG
        raise DataError(reason if plain else f"cannot be read: {reason}") from error
    if not data:
        raise DataError("empty file (0 bytes)")
    return data


def open_image(data: bytes, grey_bits: int = 16) -> Image.Image:
    """A fully decoded, upright RGB image.

    Args:
        data: the file's bytes.
        grey_bits: how many bits 16-bit greyscale images use; others have their range in them.

    Raises:
        DataError: the bytes are no usable image (the reason, without a file name).
    """
    return _decoded(data, lambda image: _to_rgb(image, grey_bits))


def open_measured(data: bytes) -> tuple[Image.Image, int]:
    """The same, by the bits that this image uses; and how many: 0 where that is no question."""

    def convert(image: Image.Image) -> tuple[Image.Image, int]:
        if not image.mode.startswith("I;16"):
            return _to_rgb(image, 16), 0
        bits = bits_of(int(np.asarray(image).max()))
        return _to_rgb(image, bits), bits

    return _decoded(data, convert)


def bits_of(value: int) -> int:
    """The least of GREY_BITS that holds a value."""
    return next(bits for bits in GREY_BITS if value < 1 << bits)


def _decoded(data: bytes, convert: Callable[[Image.Image], Converted]) -> Converted:
    try:
        with quiet_pillow():
            image = _identify(data)
            image.load()
            _refuse_lost_bits(data, image)
            _stand_upright(image)
            return convert(image)
    except DataError:
        raise
    # Pillow's readers raise nearly anything on corrupt input: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError. One bad file must not end a run over 25,000.
    except Exception as error:
        raise DataError(f"corrupt image: {' '.join(str(error).split())}") from error


def _identify(data: bytes) -> Image.Image:
    """The image with its header read and the stated limits checked, before pixels are decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError:
        raise DataError(unread_reason(data, formats())) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    if image.format == "TIFF":
        _refuse_tiff(data, image)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} px is more than {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE_PX:
        raise DataError(f"{width} x {height} px; each side must have at least {MIN_SIDE_PX} px")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        counted = getattr(image, "n_frames") if len(data) <= MAX_COUNTED_BYTES else None  # noqa: B009
        count = f" ({counted} frames)" if counted else ""
        raise DataError(f"animated or with several pages{count}")
    return image


def _refuse_tiff(data: bytes, image: Image.Image) -> None:
    """Of TIFF: raw files of cameras, and grey values that Pillow reads with black for white.

    The first picture of a raw file is a small one, to be shown by the camera.
    """
    tags = getattr(image, "tag_v2", {})
    if DNG_VERSION in tags or tags.get(NEW_SUBFILE_TYPE, 0) & 1 or data[8:10] == b"CR":
        raise DataError(
            "a raw file of a camera, of which only the small picture inside could be read: "
            "convert it to JPEG or PNG"
        )
    if image.mode.startswith("I;16") and tags.get(PHOTOMETRIC) == 0:
        raise DataError(
            "16-bit TIFF in which 0 is white, which Pillow reads as black: save it with 0 as black"
        )


def _stand_upright(image: Image.Image) -> None:
    """Applies the EXIF orientation in place; a broken EXIF block counts as none."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # the pixels are sound; EXIF parsers fail in as many ways as image readers
        return


def _refuse_lost_bits(data: bytes, image: Image.Image) -> None:
    """Of 16-bit colour Pillow keeps the upper 8 bits, where 12-bit values leave next to nothing."""
    deep = image.format == "PNG" and data[24] == 16 and not image.mode.startswith("I;16")
    if deep and image.mode in ("RGB", "RGBA", "LA"):
        colour = image.convert("RGB").getextrema()
        brightest = max(int(high) for _, high in colour)  # type: ignore[misc]
        if brightest < 16:
            raise DataError(
                f"16-bit colour that uses 12 bits or fewer (up to {brightest} of 255 in the upper "
                "byte) cannot be read; save it as 8 bits"
            )


def _to_rgb(image: Image.Image, grey_bits: int) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _scaled(np.asarray(image), grey_bits)
    if image.mode in ("I", "F"):
        raise DataError(f"32-bit pixels (mode {image.mode}) have no known range; save as 8 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled(grey: NDArray[np.uint16], bits: int) -> Image.Image:
    """(H, W) uint16 of 0 .. 2^bits - 1 as RGB, rounded to the nearest of 0 .. 255."""
    full, most = (1 << bits) - 1, int(grey.max())
    if most > full:
        raise DataError(
            f"16-bit image with values up to {most}; the images that were searched on use {bits} "
            f"bits (0 to {full})"
        )
    levels = (grey.astype(np.uint32) * 510 + full) // (2 * full)
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB")


def resize(image: NDArray[np.uint8], size: int, resizing: Resizing) -> NDArray[np.uint8]:
    """Resizes to a square; the aspect ratio is not kept.

    Args:
        image: (H, W, 3) uint8.
        size: side of the result in pixels.
        resizing: `bilinear`, see `resize_bilinear`; `area`: a pixel of the result is the mean of
            the part of the image that it covers, along a side that shrinks (which OpenCV and
            TensorFlow call so); a side that grows is resized bilinear.

    Returns:
        (size, size, 3) uint8.
    """
    return resize_bilinear(image, size) if resizing == "bilinear" else _resize_area(image, size)


def area_from(image_size: int) -> int:
    """Shorter side in pixels from which images are better resized by area than bilinear.

    Bilinear looks at two pixels a side, so most of a larger image would count for nothing.
    """
    return 4 * image_size


def _resize_area(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """In float32, first down then across as `models.raw_pixels` does, then rounded."""
    height, width = image.shape[:2]
    down, across = _shares(height, size), _shares(width, size)
    parts = np.array_split(image, min(width, math.ceil(image.size / MAX_FLOATS)), axis=1)
    rows = np.concatenate([_average_rows(down, part) for part in parts], axis=1)
    mixed = across @ rows.transpose(1, 0, 2).reshape(width, size * 3)
    upright = np.rint(mixed, out=mixed).reshape(size, size, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(upright.astype(np.uint8))


def _average_rows(weights: "csr_array", image: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    averaged: NDArray[np.float32] = weights @ image.reshape(height, width * 3).astype(np.float32)
    return averaged.reshape(-1, width, 3)


@functools.lru_cache(maxsize=1024)
def _shares(source: int, target: int) -> "csr_array":
    """(target, source) float32: what each of `source` pixels gives to each of `target`."""
    from scipy.sparse import csr_array  # which adds a filter of warnings

    if source <= target:
        first, second, part = _interpolation(source, target)
        values = np.concatenate([1 - part, part])
        places = np.tile(np.arange(target), 2), np.concatenate([first, second])
        return csr_array((values, places), shape=(target, source))
    # In units of 1/target of a pixel all edges are whole numbers.
    begins = np.arange(target)[:, None] * source
    pixels = begins // target + np.arange(source // target + 2)
    begin, end = np.maximum(begins, pixels * target), (pixels + 1) * target
    overlaps = np.maximum(np.minimum(begins + source, end) - begin, 0)
    rows, columns = np.nonzero(overlaps)
    values = overlaps[rows, columns].astype(np.float32) / np.float32(source)
    return csr_array((values, (rows, pixels[rows, columns])), shape=(target, source))


def resize_bilinear(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes as `tf.image.resize` (bilinear, no antialiasing, half-pixel centres) does.

    So does `keras.utils.image_dataset_from_directory`, which makes published results carry over;
    the aspect ratio is not kept. Arithmetic in float32 in TensorFlow's order, then rounded.

    Args:
        image: (H, W, 3) uint8.
        size: side of the result in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = image.shape[:2]
    top_rows, bottom_rows, y = _interpolation(height, size)
    left_columns, right_columns, x = _interpolation(width, size)
    # Rows of single numbers: numpy gathers those in half the time that it takes for pixels.
    left, right = _channels(left_columns), _channels(right_columns)
    rows = image.reshape(height, width * 3)
    top, bottom, x = rows[top_rows], rows[bottom_rows], np.repeat(x, 3)
    upper = _mix(top.take(left, axis=1), top.take(right, axis=1), x)
    lower = _mix(bottom.take(left, axis=1), bottom.take(right, axis=1), x)
    mixed = _mix(upper, lower, y[:, None])
    return np.rint(mixed, out=mixed).astype(np.uint8).reshape(size, size, 3)


def _channels(columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (columns[:, None] * 3 + np.arange(3)).ravel()


def _mix(
    start: NDArray[np.uint8] | NDArray[np.float32],
    end: NDArray[np.uint8] | NDArray[np.float32],
    part: NDArray[np.float32],
) -> NDArray[np.float32]:
    mixed = end.astype(np.float32)
    mixed -= start
    mixed *= part
    mixed += start
    return mixed


@functools.lru_cache(maxsize=4096)
def _interpolation(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of `target` pixels: its two neighbours among `source` and the second's part."""
    scale = np.float32(source) / np.float32(target)
    centre = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(centre)
    first = np.maximum(floor, 0).astype(np.int64)
    second = np.minimum(floor + 1, source - 1).astype(np.int64)
    return first, second, centre - floor


def decode_split(root: Path, entries: Sequence[ImageFile], size: int) -> NDArray[np.uint8]:
    """Decodes and resizes images in the given order; any slice of a split is a shard.

    Every file is compared with the manifest's hash (0.02 ms each): labels and splits hold for
    those bytes only.

    Returns:
        (N, size, size, 3) uint8.

    Raises:
        DataError: a file is missing, unreadable or no longer the one in the manifest.
    """
    images = np.empty((len(entries), size, size, 3), np.uint8)
    for index, entry in enumerate(entries):
        path = root / entry.path
        try:
            data = read_file(path)
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise DataError("changed since the manifest was made; make the manifest again")
            bits, resizing = entry.decoding
            images[index] = resize(np.asarray(open_image(data, bits)), size, resizing)
        except DataError as error:
            raise DataError(f"{shown(path)}: {error}") from error
    return images
