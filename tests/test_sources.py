"""sources.resolve, .archives and .downloads, against real archives and a real server."""

import gzip
import io
import os
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pawtune.data_pipeline.cache import CACHE_KINDS, cache_dir, clear_cache, list_cache
from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.sources import archives, downloads, sample
from pawtune.data_pipeline.sources import resolve as sources
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from tests.image_files import write_classes, write_image

COUNTS = {"set/cat": 4, "set/dog": 4}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pawtune"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", COUNTS)


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
        file.writestr("set/vectorize.py", "print('hello')")
        file.writestr("__MACOSX/set/._cat", b"\0\5\26\7")
    return archive


def tarred(folder: Path, archive: Path) -> Path:
    mode = {".tar": "w", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}[archive.suffix]
    with tarfile.open(archive, mode) as file:  # type: ignore[call-overload]
        file.add(folder, ".")
    return archive


# Names and folders


def test_a_folder_is_used_in_place(images: Path, cache: Path) -> None:
    assert resolve_source(str(images), cache=cache) == images
    assert resolve_source(os.path.relpath(images), cache=cache) == images
    assert not cache.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("sampel", r"no such folder, archive or name: sampel; did you mean sample\? \(names: cats"),
        ("cats-and-dogs", r"did you mean cats_and_dogs\?"),
        ("zebra", r"no such folder, archive or name: zebra \(names: cats_and_dogs, sample; or"),
        ("no/where", "no such folder or archive: no/where; check the path, it exists as far as /"),
        ("photos.zip", "no such folder or archive: photos.zip; check the path"),
        ("ftp://host/x.zip", "only http://, https://, s3:// and gs:// can be"),
        ("", "no such folder, archive or name: "),
        (
            "~nobody-here/photos",
            "no such folder or archive: ~nobody-here/photos; check the path, it",
        ),
        ("a\0b", r"must be a path that can be looked at, received a\\x00b: embedded null byte; c"),
        ("x" * 300, "that can be looked at, received x+…: File name too long; check it, and"),
        ("HTTP://127.0.0.1:9/a.zip", "cannot be reached"),
    ],
)
def test_unknown_data_is_refused(data: str, message: str, cache: Path) -> None:
    with pytest.raises(DataError, match=message):
        resolve_source(data, cache=cache)


def test_what_a_shell_would_have_taken_away_is_named(
    images: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOS", str(images))
    spaced = images.rename(images.with_name("my images"))
    backslashed = str(spaced).replace(" ", "\\ ")
    for data in (f"'{spaced}'", f'"{spaced}"', f"{spaced} ", backslashed, spaced.as_uri()):
        with pytest.raises(DataError, match=rf"; did you mean {spaced}\?; check the path"):
            resolve_source(data, cache=cache)
    spaced.rename(images)
    with pytest.raises(DataError, match=rf"archive: \$PHOTOS/set; did you mean {images}/set\?; "):
        resolve_source("$PHOTOS/set", cache=cache)


def test_what_is_there_and_no_data_is_named(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(DataError, match="link is a link to gone, which is not there; mend the"):
        resolve_source(str(tmp_path / "link"), cache=cache)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe, which is neither a folder nor a regular file"):
        resolve_source(str(tmp_path / "pipe"), cache=cache)
    (tmp_path / "a.csv").write_text("id,label\n")
    with pytest.raises(DataError, match="received the table .*a.csv'; give the folder of its im"):
        resolve_source(str(tmp_path / "a.csv"), cache=cache)


def test_sample_is_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample.make_sample, "__kwdefaults__", {
        "per_class": {"train": 2, "validation": 2, "test": 1}, "size_px": 24, "progress": None,
    })  # fmt: skip
    root = resolve_source("sample", cache=cache)
    assert build_manifest(root).counts()["train"] == {"dalmatian": 2, "tabby": 2}
    before = root.stat().st_mtime_ns
    assert resolve_source("sample", cache=cache) == root
    assert root.stat().st_mtime_ns == before
    assert [entry.kind for entry in list_cache(cache)] == ["samples"]


def test_an_interrupted_sample_leaves_nothing(cache: Path) -> None:
    def interrupt(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_source("sample", cache=cache, progress=interrupt)
    assert list_cache(cache) == []


# Archives


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.xz", "a.tar.bz2", "no-suffix"])
def test_archives_are_unpacked_once(name: str, images: Path, tmp_path: Path, cache: Path) -> None:
    make = zipped if name in ("a.zip", "no-suffix") else tarred
    archive = make(images, tmp_path / name)
    told: list[tuple[str, int, int | None]] = []
    root = resolve_source(str(archive), cache=cache, progress=lambda *now: told.append(now))
    assert root.name == "set"
    assert build_manifest(root).fingerprint == build_manifest(images / "set").fingerprint
    assert {stage for stage, _, _ in told} == {"unpack"}
    told.clear()
    copy = archive.rename(tmp_path / "moved")
    assert resolve_source(str(copy), cache=cache, progress=lambda *now: told.append(now)) == root
    assert told == []
    assert [entry.kind for entry in list_cache(cache)] == ["archives"]


def test_class_folders_at_the_top_are_not_gone_into(tmp_path: Path, cache: Path) -> None:
    folder = write_classes(tmp_path / "images", {"cat": 1, "dog": 1})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for path in folder.rglob("*.png"):
            file.write(path, path.relative_to(folder))
    root = resolve_source(str(tmp_path / "a.zip"), cache=cache)
    assert sorted(path.name for path in root.iterdir()) == ["cat", "dog"]


def zip_with(*members: tuple[str | zipfile.ZipInfo, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members:
                file.writestr(name, content)

    return write


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as file:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(b"hello") if info.size else None)

    return write


def zip_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted(path: Path) -> None:
    zip_with(("a.txt", b"secret"))(path)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)


def truncated_tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo("a")
        info.size = 100_000
        file.addfile(info, io.BytesIO(os.urandom(100_000)))
    path.write_bytes(path.read_bytes()[:50_000])


def cut_tar(path: Path, *, keep: int | None = None, overwrite: int | None = None) -> None:
    """A plain tar of six members of 1 KiB each, cut off or overwritten where a member begins."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for number in range(6):
            info = tarfile.TarInfo(f"cat/{number}")
            info.size = 512
            file.addfile(info, io.BytesIO(b"x" * 512))
    content = bytearray(path.read_bytes())
    if overwrite is not None:
        content[overwrite : overwrite + 512] = b"y" * 512
    path.write_bytes(content[:keep])


def two_tars(path: Path) -> None:
    cut_tar(path)
    path.write_bytes(path.read_bytes() * 2)


def starting_with(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content + bytes(600))  # type: ignore[return-value]


def cut_zip(path: Path) -> None:
    zip_with(("a", os.urandom(500)))(path)
    path.write_bytes(path.read_bytes()[:300])


def damaged_zip(path: Path) -> None:
    zip_with(("a", bytes(range(256)) * 50))(path)
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)


def sparse_tar(path: Path) -> None:
    """A few hundred bytes that say they hold 8 GiB: old GNU sparse format, one empty region."""
    info = tarfile.TarInfo("a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = header[398:410] = b"00000000000\0"
    header[483:495] = b"%011o\0" % (8 * 2**30 - 1)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))


def pax_bomb(path: Path) -> None:
    """Some kilobytes whose extended header says that it takes a gigabyte, and does."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    with gzip.open(path, "wb", 9) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(64 * 2**20))  # what follows need not be there to be waited for


def many_headers(kind: bytes, size: int, count: int, fill: bytes = b"a") -> Callable[[Path], None]:
    """Header upon header, each allowed by itself, and no member."""

    def write(path: Path) -> None:
        info = tarfile.TarInfo("././@Header")
        info.type, info.size = kind, size
        block = info.tobuf(tarfile.USTAR_FORMAT) + fill * size
        with gzip.open(path, "wb", 6) as file:
            for _ in range(count):
                file.write(block)

    return write


def pax_sparse(version: dict[str, str]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as file:
            info = tarfile.TarInfo("a")
            info.size, info.pax_headers = 512, version
            file.addfile(info, io.BytesIO(b"99999999999\n".ljust(512, b"1")))

    return write


def lying_zip(size: int) -> Callable[[Path], None]:
    """A zip whose headers say another size than what comes out."""

    def write(path: Path) -> None:
        zip_with(("a", bytes(5000)))(path)
        content = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
            at = content.index(signature) + offset
            content[at : at + 4] = size.to_bytes(4, "little")
        path.write_bytes(content)

    return write


def overlapping_zip(path: Path) -> None:
    """Many entries that share one body: how a zip of 10 MB becomes 281 TB (Fifield, 2019)."""
    zip_with(*((f"{number:04d}", bytes(10_000)) for number in range(50)))(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2")
    while (at := content.find(b"PK\1\2", at)) >= 0:
        content[at + 42 : at + 46] = bytes(4)  # each begins where the first does
        at += 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (pax_bomb, "extended headers take more than 16 MiB: refused as a decompression bomb"),
        (many_headers(tarfile.XGLTYPE, 2**20, 20), "extended headers take more than 16 MiB"),
        (many_headers(tarfile.GNUTYPE_LONGNAME, 512, 3000), "cannot be unpacked: "),
        (many_headers(tarfile.XHDTYPE, 2**20, 1, b"0"), "hold numbers without end"),
        (pax_sparse({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "is sparse: refused"),
        (pax_sparse({"GNU.sparse.map": "0," * 9999}), "is sparse: refused"),
        (pax_sparse({"GNU.sparse.size": "9"}), "is sparse: refused"),
        (lying_zip(10), "cannot be unpacked: Bad CRC-32"),
        (overlapping_zip, "cannot be unpacked: "),
        (zip_with(("a", b"1"), ("a", b"2")), r"member 'a' comes twice"),
        (zip_with(("a", b"1"), ("./a", b"2")), r"member './a' comes twice"),
        (zip_with(("a" * 300, b"1")), "cannot be unpacked: File name too long|cannot be unpacked"),
        (zip_with(("two\nlines", b"1"), ("../x\n", b"")), r"member '../x\\n' leaves the folder"),
        (tar_with("a", tarfile.BLKTYPE), "is a link or a device"),
        (zip_with(("../../evil.txt", b"x")), r"member '../../evil.txt' leaves the folder: refused"),
        (zip_with(("a/../../evil.txt", b"x")), "leaves the folder: refused"),
        (zip_with(("/tmp/evil.txt", b"x")), "leaves the folder: refused"),
        (zip_with((r"..\evil.txt", b"x")), "member '../evil.txt' leaves the folder: refused"),
        (zip_with((r"a/..\evil.txt", b"x")), "holds a backslash or a drive letter: refused"),
        (zip_with(("C:/evil.txt", b"x")), "holds a backslash or a drive letter: refused"),
        (zip_with((zip_link(), b"/etc/passwd")), "member 'set/link' is a link or a device"),
        (tar_with("../evil.txt"), "member '../evil.txt' leaves the folder"),
        (tar_with("/evil.txt"), "leaves the folder"),
        (tar_with("a", tarfile.SYMTYPE, "/etc"), "member 'a' is a link or a device: refused"),
        (tar_with("a", tarfile.LNKTYPE, "/etc/passwd"), "is a link or a device"),
        (tar_with("a", tarfile.CHRTYPE), "is a link or a device"),
        (tar_with("a", tarfile.FIFOTYPE), "is a link or a device"),
        (zip_with(("bomb", bytes(200 * 2**20))), r"more than 100 times as much .*: refused as a"),
        (sparse_tar, "is sparse: refused"),
        (zip_with(("a", b"1"), ("a/b", b"2")), "cannot be unpacked: "),
        (encrypted, "member 'a.txt' is encrypted; unpack it yourself"),
        (truncated_tar, "cannot be unpacked: "),
        (damaged_zip, "cannot be unpacked: "),
        (partial(cut_tar, keep=3 * 1024), "after 3,072 bytes there is none and no member: cut off"),
        (partial(cut_tar, keep=3 * 1024 + 100), "after 3,072 bytes there is none"),
        (partial(cut_tar, overwrite=3 * 1024), "after 3,072 bytes there is none"),
        (two_tars, "holds another tar behind its end, which would be left out"),
        (cut_zip, "a zip archive without its end: cut off, or one part of several; fetch it"),
        (lambda path: path.touch(), r"an empty file \(0 bytes\); fetch it again"),
        (starting_with(b"7z\xbc\xaf\x27\x1c"), "a 7z archive; zip and tar .*: unpack it yourself"),
        (starting_with(b"Rar!\x1a\x07"), "a RAR archive; zip and tar .*: unpack it yourself"),
        (starting_with(gzip.compress(b"x")), "a file packed by gzip; zip and tar"),
        (starting_with(b"version https://git-lfs.github.com/spec/v1"), ".* run `git lfs pull`"),
        (starting_with(b"\n<!DOCTYPE html><html>"), "not an archive but a web page, as links"),
        (starting_with(b"PAR1"), "Parquet; images must be files: write each as JPEG or PNG into"),
        (starting_with(b"\x93NUMPY"), "a NumPy array; images must be files"),
        (starting_with(b"text"), r"not an archive; zip and tar \(plain, gz, bz2"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_archives_are_refused(
    write: Callable[[Path], object], message: str, tmp_path: Path, cache: Path
) -> None:
    write(tmp_path / "archive")
    with pytest.raises(DataError, match=rf"archive: {message}|archive: .*{message}"):
        resolve_source(str(tmp_path / "archive"), cache=cache)
    assert list_cache(cache) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "cache"]


def test_a_zip_written_on_windows(tmp_path: Path, cache: Path) -> None:
    """Backslashes between folders, names in UTF-8 without the flag that says so."""
    archive = tmp_path / "pets.zip"
    content = picture_bytes(tmp_path)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("pets\\", b"")
        for name in ("caf@@\\1.png", "dog\\1.png", "Thumbs.db"):
            file.writestr(f"pets\\{name}", content)
    archive.write_bytes(archive.read_bytes().replace(b"caf@@", "café".encode()))
    folder = resolve_source(str(archive), cache=cache)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"café/1.png", "dog/1.png", "Thumbs.db"}


def test_names_that_differ_in_case_are_two_files(tmp_path: Path, cache: Path) -> None:
    """Where a file system holds them apart; where it does not, the second is refused."""
    content = picture_bytes(tmp_path)
    names = ("cat/A.png", "cat/a.png", "dog/b.png")
    zip_with(*((name, content) for name in names))(tmp_path / "a.zip")
    root = resolve_source(str(tmp_path / "a.zip"), cache=cache)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*.png")) == sorted(names)


def test_sizes_are_counted_not_believed(tmp_path: Path) -> None:
    lying_zip(2**31)(tmp_path / "a.zip")
    archives.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == bytes(5000)


def test_an_archive_inside_stays_a_file(tmp_path: Path, cache: Path) -> None:
    zip_with(("bomb", bytes(2**20)))(tmp_path / "inner")
    inner = (tmp_path / "inner").read_bytes()
    zip_with(("cat/inner.zip", inner), ("dog/inner.tar", inner))(tmp_path / "a.zip")
    root = resolve_source(str(tmp_path / "a.zip"), cache=cache)
    assert (root / "cat" / "inner.zip").read_bytes() == inner
    assert len(list(root.rglob("*"))) == 4


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path, images: Path, cache: Path) -> None:
    zip_with(("a/1.png", b"1"), ("b/1.png", b"2"))(images / "set" / "zzz.zip")
    root = resolve_source(str(tarred(images, tmp_path / "a.tar")), cache=cache)
    assert {path.name for path in root.iterdir()} == {"cat", "dog", "zzz.zip"}


def picture_bytes(folder: Path) -> bytes:
    return write_image(folder / "picture.png", 1).read_bytes()


def test_too_many_members_are_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    zip_with(*((str(number), b"") for number in range(4)))(tmp_path / "archive")
    with pytest.raises(DataError, match="more than 3 members: refused"):
        resolve_source(str(tmp_path / "archive"), cache=cache)


PARTS = st.sampled_from(["..", "/", "a", "\\", "C:", "\0", "~", ".", " "])


@given(st.lists(PARTS).map("".join) | st.text())
def test_member_paths_never_escape(name: str) -> None:
    folder = "/somewhere/inside"
    try:
        path = os.path.normpath(os.path.join(folder, archives.safe_path(name)))
    except DataError:
        return
    assert path == folder or path.startswith(folder + "/")


# Downloads


class Server(ThreadingHTTPServer):
    """Serves one file, with ranges and a version unless told otherwise; notes what it was asked."""

    daemon_threads = True
    content = b""
    etag = '"1"'
    has_ranges = True
    breaks_after: int | None = None
    asked: list[str | None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Range"])
        content, start = self.server.content, 0
        if self.path != "/a.zip":
            self.send_error(404)
            return
        if self.headers["Range"] and self.headers["If-Range"] == self.server.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.has_ranges:
            self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.breaks_after])

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output."""


@pytest.fixture
def server(images: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content = zipped(images, tmp_path / "a.zip").read_bytes()
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_url_is_downloaded_and_unpacked_once(server: Server, cache: Path, images: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    root = resolve_source(server.url, cache=cache, progress=lambda *now: told.append(now))
    size = len(server.content)
    assert build_manifest(root).fingerprint == build_manifest(images / "set").fingerprint
    assert told[0] == ("download", 0, size)
    assert ("download", size, size) in told
    assert resolve_source(server.url, cache=cache) == root
    assert len(server.asked) == 1
    assert not list(cache.rglob("*.archive*"))


def test_a_local_copy_of_a_download_is_the_same_folder(
    server: Server, cache: Path, tmp_path: Path
) -> None:
    root = resolve_source(server.url, cache=cache)
    assert resolve_source(str(tmp_path / "a.zip"), cache=cache) == root


def test_a_broken_download_is_resumed(server: Server, cache: Path) -> None:
    server.breaks_after = 1000
    with pytest.raises(DataError, match=r"broke off after 1,000 of [\d,]+ bytes; give the same"):
        resolve_source(server.url, cache=cache)
    server.breaks_after = None
    told: list[tuple[str, int, int | None]] = []
    root = resolve_source(server.url, cache=cache, progress=lambda *now: told.append(now))
    assert server.asked == [None, "bytes=1000-"]
    assert told[0] == ("download", 1000, len(server.content))
    assert len(build_manifest(root).entries) == 8


def test_a_changed_file_is_begun_anew(server: Server, cache: Path) -> None:
    server.breaks_after = 1000
    with pytest.raises(DataError, match="broke off"):
        resolve_source(server.url, cache=cache)
    server.breaks_after, server.etag = None, '"2"'
    assert len(build_manifest(resolve_source(server.url, cache=cache)).entries) == 8
    assert server.asked == [None, "bytes=1000-"]


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(bytes(len(server.content) + 1))
    (tmp_path / "x.version").write_text(server.etag)
    target = downloads.download(server.url, tmp_path / "x")
    assert target.read_bytes() == server.content
    assert len(server.asked) == 2


def test_without_ranges_a_download_is_begun_anew(server: Server, cache: Path) -> None:
    server.has_ranges, server.breaks_after = False, 1000
    with pytest.raises(DataError, match="broke off"):
        resolve_source(server.url, cache=cache)
    server.breaks_after = None
    assert len(build_manifest(resolve_source(server.url, cache=cache)).entries) == 8
    assert server.asked == [None, None]


def test_two_downloads_at_once_are_one(server: Server, cache: Path) -> None:
    roots: list[Path] = []
    threads = [
        threading.Thread(target=lambda: roots.append(resolve_source(server.url, cache=cache)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(roots) == 3
    assert len(set(roots)) == 1
    assert len(server.asked) == 1


def test_a_missing_file_and_a_page_in_its_place_are_told(server: Server, cache: Path) -> None:
    with pytest.raises(DataError, match=r"/b\.zip: the server answered 404 Not Found"):
        resolve_source(server.url.replace("a.zip", "b.zip"), cache=cache)
    server.content = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"^http://\S+/a\.zip: not an archive but a web page"):
        resolve_source(server.url, cache=cache)
    assert not list(cache.rglob("*.archive*"))


def test_being_offline_is_noticed_soon(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TEST-NET-1 (RFC 5737) belongs to nobody: the packets vanish or are refused.
    monkeypatch.setattr(sources, "CATS_AND_DOGS_URL", "http://192.0.2.1/a.zip")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "TIMEOUT_S", 1.0)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached \(.*\); check the connection, or dow"):
        resolve_source("cats_and_dogs", cache=cache)
    assert time.monotonic() - start < 60  # the system itself would wait for two minutes


# Cache


def test_cache_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "pawtune"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_dir() == Path.home() / ".cache" / "pawtune"


def test_cache_is_listed_and_cleared(images: Path, tmp_path: Path, cache: Path) -> None:
    assert list_cache(cache) == []
    assert clear_cache(cache) == 0
    resolve_source(str(zipped(images, tmp_path / "a.zip")), cache=cache)
    build_manifest(images / "set", cache=cache)
    entries = list_cache(cache)
    assert [entry.kind for entry in entries] == ["archives", "hashes"]
    assert entries[0].size_bytes > 8 * 100
    assert {entry.kind for entry in entries} <= set(CACHE_KINDS)
    assert clear_cache(cache, ["hashes"]) == entries[1].size_bytes
    with pytest.raises(DataError, match="KIND must be one of archives, .*, received 'bank'"):
        clear_cache(cache, ["bank"])
    entries = list_cache(cache)
    assert [entry.kind for entry in entries] == ["archives"]
    assert clear_cache(cache) == sum(entry.size_bytes for entry in entries)
    assert list_cache(cache) == []


def test_only_a_marked_folder_is_cleared(tmp_path: Path) -> None:
    mine = write_image(tmp_path / "photos" / "a.png", 0)
    with pytest.raises(DataError, match=r"photos has no CACHEDIR.TAG of pawtune: not deleted"):
        clear_cache(tmp_path / "photos")
    assert mine.exists()


def test_unwritable_cache_is_told(tmp_path: Path, images: Path) -> None:
    (tmp_path / "file").touch()
    archive = zipped(images, tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"cannot write the cache .*; set XDG_CACHE_HOME to a fold"):
        resolve_source(str(archive), cache=tmp_path / "file" / "cache")
