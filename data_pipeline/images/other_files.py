"""What a file is that stands in place of images or of an archive, and the remedy.

Archives that are not unpacked, arrays and tables that hold images, what a download or a checkout
leaves in place of a file. Recognised by the first bytes, else by the name.
"""

from pathlib import PurePosixPath

SEEN_BYTES = 4096  # of a file, to say what it is
UNPACK = "unpack it yourself and give the folder"
WRITE_FILES = (
    "images must be files: write each as JPEG or PNG into a folder of its class, and give the "
    "folder above"
)
LFS_PULL = "run `git lfs pull`"
LFS_MARK = b"version https://git-lfs"
# (offset, first bytes, name)
PACKED = (
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a file packed by zstd"),
    (0, b"\x1f\x8b", "a file packed by gzip"),
    (0, b"BZh", "a file packed by bzip2"),
    (0, b"\xfd7zXZ", "a file packed by xz"),
    (0, b"PK\3\4", "a zip archive"),
    (257, b"ustar", "a tar archive"),
)
ARRAYS = (
    (0, b"PAR1", "Parquet"),
    (0, b"ARROW1", "Arrow"),
    (0, b"\xff\xff\xff\xff\x10\0\0\0", "Arrow"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"MATLAB", "a MATLAB file"),
    (0, b"\0\0\x08\3", "arrays in the IDX format of MNIST"),
    (0, b"\0\0\x08\1", "arrays in the IDX format of MNIST"),
    *((0, bytes([0x80, version]), "a pickle of Python") for version in range(2, 6)),
)
ARRAY_SUFFIXES = {
    ".arrow": "Arrow", ".lmdb": "LMDB", ".mat": "a MATLAB file", ".mdb": "LMDB",
    ".npz": "NumPy arrays", ".parquet": "Parquet", ".pickle": "a pickle of Python",
    ".pkl": "a pickle of Python", ".rec": "RecordIO", ".tfrec": "TFRecord",
    ".tfrecord": "TFRecord", ".tfrecords": "TFRecord",
}  # fmt: skip


def stand_in(name: str, data: bytes) -> tuple[str, str] | None:
    """What a file is that may hold images and is none, and the remedy; None for any other.

    Args:
        name: the file's.
        data: its first SEEN_BYTES.
    """
    if data.startswith(LFS_MARK):
        return "a pointer of Git LFS in place of the file", LFS_PULL
    # train.tfrecord-00001-of-00005 too
    suffixes = [suffix.lower().partition("-")[0] for suffix in PurePosixPath(name).suffixes]
    named = [ARRAY_SUFFIXES[suffix] for suffix in suffixes if suffix in ARRAY_SUFFIXES]
    for known, remedy in ((ARRAYS, WRITE_FILES), (PACKED, UNPACK)):
        for offset, first, kind in known:
            if data[offset:].startswith(first) and not (named and known is PACKED):
                return kind, remedy
    return (named[-1], WRITE_FILES) if named else None


def no_archive_reason(name: str, data: bytes) -> str:
    """What a file is that cannot be unpacked, and the remedy.

    Args:
        name: the file's.
        data: its first SEEN_BYTES.
    """
    if not data:
        return "an empty file (0 bytes); fetch it again"
    if data.startswith(b"PK\3\4"):
        return (
            "a zip archive without its end: cut off, or one part of several; fetch it again, or "
            "join the parts and unpack them yourself"
        )
    if data.lstrip()[:9].lower().startswith((b"<html", b"<!doctype")):
        return (
            "not an archive but a web page, as links often lead to in place of a file; fetch the "
            "archive itself"
        )
    rule = "zip and tar (plain, gz, bz2, xz) can be unpacked"
    kind, remedy = stand_in(name, data) or ("", "")
    if remedy == UNPACK:
        return f"{kind}; {rule}: {remedy}"
    return f"{kind}; {remedy}" if kind else f"not an archive; {rule}"
