"""Which image formats are read, and what is said of a file that is none of them.

Some of Pillow's readers start programs or fetch files; those named here do neither.
"""

import functools
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from PIL import features

from pawtune.data_pipeline.images.other_files import LFS_PULL, SEEN_BYTES, UNPACK, stand_in

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
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"II*\0\x10\0\0\0CR", "raw camera file"),
    (0, b"FUJIFILMCCD-RAW", "raw camera file"),
    (0, b"IIU\0", "raw camera file"),
    (0, b"IIRO", "raw camera file"),
    (0, b"IIRS", "raw camera file"),
    (0, b"FOVb", "raw camera file"),
    (0, b"\0MRM", "raw camera file"),
    (4, b"ftypcrx", "raw camera file"),
    (0, b"DDS ", "DDS"),
    (0, b"icns", "ICNS"),
    (0, b"qoif", "QOI"),
    (0, b"\x0a\5\1", "PCX"),
    (0, b"\1\xda", "SGI"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"ZISRAWFILE", "CZI"),
    (344, b"n+1\0", "NIfTI"),
    (8, b"AVI ", "video"),
    (0, b"\0\0\1\xba", "video"),
    (4, b"ftyp", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
)
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
    kind, remedy = stand_in("", data[:SEEN_BYTES]) or ("", "")
    if remedy in (LFS_PULL, UNPACK):
        return f"{kind}: {'unpack it' if remedy == UNPACK else remedy}"
    if kind:
        return f"{kind}, a format that is not read: convert it to JPEG or PNG"
    if b"<svg" in data[:1000]:
        return "SVG, a format that is not read: convert it to JPEG or PNG"
    return f"not an image (read: {', '.join(read)})"
