"""Which image formats are read, and what is said of a file that is none of them.

Some of Pillow's readers start programs or fetch files; those named here do neither.
"""

import functools
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from PIL import features

ALWAYS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "ICO")
WHERE_BUILT = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
HEIC_PLUGIN = "pillow_heif"

# (offset, first bytes, name) of formats that may not be read.
SIGNATURES = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (128, b"DICM", "DICOM"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (4, b"ftyp", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
)
# What is given in place of an archive or of an image, by its first bytes, and the remedy.
UNPACK = "unpack it yourself and give the folder"
WRITE_FILES = (
    "images must be files: write each as JPEG or PNG into a folder of its class, and give the "
    "folder above"
)
PACKED = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a file packed by zstd"),
    (b"\x1f\x8b", "a file packed by gzip, and no tar"),
    (b"BZh", "a file packed by bzip2, and no tar"),
    (b"\xfd7zXZ", "a file packed by xz, and no tar"),
    (b"PK\3\4", "a zip archive"),
)
ARRAYS = (
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "HDF5"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x80\2", "a pickle of Python"),
    (b"\x80\3", "a pickle of Python"),
    (b"\x80\4", "a pickle of Python"),
    (b"\x80\5", "a pickle of Python"),
)
LFS_MARK = b"version https://git-lfs"
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


@functools.cache
def formats() -> tuple[str, ...]:
    """What is read here, by Pillow's names; loads the reader of HEIC where it is installed."""
    built = [name for name, feature in WHERE_BUILT.items() if features.check(feature)]
    if find_spec(HEIC_PLUGIN) is not None:
        import_module(HEIC_PLUGIN).register_heif_opener()
        built.append("HEIF")
    return (*ALWAYS, *built)


def decoder_versions() -> dict[str, str | None]:
    """Versions of all that decodes: with another, pixels may be others."""
    codecs = ("libjpeg_turbo", "jpg", "libtiff", "webp", "zlib", "avif", "jpg_2000")
    found = {name: features.version(name) for name in codecs}
    try:
        found["heif"] = version(HEIC_PLUGIN)
    except PackageNotFoundError:
        found["heif"] = None
    return found


def unread_reason(data: bytes, read: tuple[str, ...]) -> str:
    """Why bytes that none of the readers takes are left out."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return (
            "HEIC, a format that is not read: convert it to JPEG or PNG, or pip install "
            "'pawtune[heic]'"
        )
    for offset, first, name in SIGNATURES:
        if data[offset:].startswith(first):
            return f"{name}, a format that is not read: convert it to JPEG or PNG"
    if b"<svg" in data[:1000]:
        return "SVG, a format that is not read: convert it to JPEG or PNG"
    return f"not an image (read: {', '.join(read)})"


def no_archive_reason(data: bytes) -> str:
    """What a file is, by its first bytes, that is no archive which can be unpacked; the remedy."""
    if not data:
        return "an empty file (0 bytes); fetch it again"
    if data.startswith(LFS_MARK):
        return "not an archive but a pointer of Git LFS in its place; run `git lfs pull`"
    if data.startswith(b"PK\3\4"):
        return (
            "a zip archive without its end: cut off, or one part of several; fetch it again, or "
            "join the parts and unpack them yourself"
        )
    start = data.lstrip()[:9].lower()
    if start.startswith((b"<html", b"<!doctype")):
        return (
            "not an archive but a web page, as links often lead to in place of a file; fetch the "
            "archive itself"
        )
    for first, name in PACKED:
        if data.startswith(first):
            return f"{name}; zip and tar (plain, gz, bz2, xz) can be unpacked: {UNPACK}"
    for first, name in ARRAYS:
        if data.startswith(first):
            return f"{name}; {WRITE_FILES}"
    return "not an archive; zip and tar (plain, gz, bz2, xz) can be unpacked"
