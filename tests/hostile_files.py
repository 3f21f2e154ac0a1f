"""A folder of images with everything in it that a folder of images can hold, and more.

Each file has one stated fate: it is used, with the pixels that are due, or left out with a reason.
The table in docs/reliability.md is made from what really becomes of them:

    python -m tests.hostile_files
"""

import ctypes
import io
import os
import re
import socket
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.manifest import Manifest
from tests.image_files import picture, write_image

HOW = {  # what "used" means beyond the plain pixels; the test compares them
    "alpha channel": "used, composed on white",
    "palette": "used, converted to RGB",
    "palette with transparency": "used, composed on white",
    "CMYK": "used, converted to RGB; colour profiles are not applied",
    "16 bits a channel": "used, scaled to 8 bits",
    "greyscale, 1-bit": "used, the grey value in all three channels",
    "MPO: JPEG of several pictures": "used, the first picture",
    "EXIF orientation 1 to 8": "used, turned upright",
    "EXIF that is broken or says nonsense": "used, not turned",
    "wrong or no extension": "used: contents count, not names",
    "folder called like an image": "used: what is in it",
    "symbolic link out of the folder": "used, as what it leads to",
    "symbolic link to an image inside": "used; shares a split with what it leads to",
    "one content twice under one label": "both used; they share a split",
}

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- files: made by python -m tests.hostile_files -->", "<!-- files: end -->"
Pixels = NDArray[np.uint8]
Make = Callable[[Path], object]


@dataclass(frozen=True)
class HostileFile:
    """One file, or link, pipe or socket.

    Attributes:
        kind: Its row in the table.
        name: Below the class folder `cat`, in bytes; may hold folders.
        make: Writes it.
        reason: A pattern of the reason why it is left out; None: it is used.
        pixels: What it must decode to; None: anything of the right size.
        tolerance: Grey levels that a pixel may be off on average: for lossy formats.
        here: Where it lies instead of `cat`.
        only_in_run: It has its reason from the folder around it, which `predict` does not ask.
    """

    kind: str
    name: bytes
    make: Make
    reason: str | None = None
    pixels: Pixels | None = None
    tolerance: float = 0.0
    here: str = "cat"
    only_in_run: bool = False

    def path(self, root: Path) -> Path:
        """Where it lies."""
        return root / self.here / os.fsdecode(self.name)


BEST: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as the bytes of a file, at the best quality unless told."""
    stream = io.BytesIO()
    image.save(stream, kind, **{**BEST.get(kind, {}), **options})  # type: ignore[arg-type]
    return stream.getvalue()


def bytes_of(content: bytes) -> Make:
    """Writes just these bytes."""
    return lambda path: path.write_bytes(content)


class Corpus:
    """Collects the files; each picture is another one, so that no two are near duplicates."""

    def __init__(self) -> None:
        self.files: list[HostileFile] = []
        self._seed = 1000

    def picture(self, height: int = 24, width: int = 32) -> Pixels:
        """A picture that no other file has."""
        self._seed += 1
        return picture(self._seed, height, width)

    def add(self, kind: str, name: str | bytes, make: Make | bytes, **fate: object) -> None:
        """Adds a file."""
        raw = name.encode() if isinstance(name, str) else name
        write = bytes_of(make) if isinstance(make, bytes) else make
        self.files.append(HostileFile(kind, raw, write, **fate))  # type: ignore[arg-type]

    def add_used(self, kind: str, name: str | bytes) -> None:
        """Adds a sound PNG whose name is what is hostile about it."""
        pixels = self.picture()
        self.add(kind, name, encoded(Image.fromarray(pixels), "PNG"), pixels=pixels)


def hostile_files() -> list[HostileFile]:
    """All of them; two calls give the same."""
    corpus = Corpus()
    for part in (_sound, _truncated, _no_images, _polyglots, _bombs, _modes, _animated):
        part(corpus)
    for part in (_rotated, _named, _system_files, _links, _unreadable, _double):
        part(corpus)
    return corpus.files


def make_corpus(root: Path, files: Sequence[HostileFile]) -> Path:
    """Writes the folder: the hostile files, and enough sound ones for three splits."""
    outside = root.with_name(f"{root.name}-outside")
    write_image(outside / "private.png", 1)
    for label in ("cat", "dog"):
        for number in range(10):
            write_image(root / label / f"sound_{number}.png", (label == "dog") * 50 + number)
    for file in files:
        path = file.path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        file.make(path)
    return root


def count_files(root: Path) -> int:
    """All that is no folder, links to folders included, and folders that cannot be listed.

    Counted without any code of ours.
    """
    unlisted: list[OSError] = []
    total = 0
    for folder, folders, names in os.walk(root, onerror=unlisted.append):
        total += len(names) + sum(os.path.islink(os.path.join(folder, name)) for name in folders)
    return total + len(unlisted)


def _sound(corpus: Corpus) -> None:
    for suffix, kind, lossy in (
        ("png", "PNG", 0),
        ("jpg", "JPEG", 4),
        ("bmp", "BMP", 0),
        ("tiff", "TIFF", 0),
        ("ppm", "PPM", 0),
        ("webp", "WEBP", 8),
        ("gif", "GIF", 12),
    ):
        pixels = corpus.picture()
        content = encoded(Image.fromarray(pixels), kind)
        fate = {"pixels": pixels, "tolerance": lossy}
        corpus.add("JPEG, PNG, BMP, GIF, WebP, TIFF, PPM", f"sound.{suffix}", content, **fate)
    for name, kind in (
        ("png_called.jpg", "PNG"),
        ("jpeg_called.txt", "JPEG"),
        ("no_suffix", "BMP"),
    ):
        pixels = corpus.picture()
        content = encoded(Image.fromarray(pixels), kind)
        fate = {"pixels": pixels, "tolerance": 4 if kind == "JPEG" else 0}
        corpus.add("wrong or no extension", name, content, **fate)


def _truncated(corpus: Corpus) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (72, 72, 3), dtype=np.uint8)
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png")):
        content = encoded(Image.fromarray(noise), kind)
        row = f"{kind} cut off at every kilobyte"
        for size in range(1024, len(content) - 64, 1024):
            name = f"cut_at_{size:05d}.{suffix}"
            corpus.add(row, name, content[:size], reason="corrupt image: ")
    for kind in ("GIF", "WEBP", "TIFF", "BMP", "PPM"):
        content = encoded(Image.fromarray(noise), kind)
        name = f"half.{kind.lower()}"
        reason = "corrupt image: |not an image"
        corpus.add("GIF, WebP, TIFF, BMP, PPM cut in half", name, content[: len(content) // 2],
                   reason=reason)  # fmt: skip


def _no_images(corpus: Corpus) -> None:
    corpus.add("zero bytes", "empty.jpg", b"", reason=r"empty file \(0 bytes\)")
    page = b"<html><script>alert(1)</script></html>"
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n"
    for name, content in (
        ("one_byte.jpg", b"\xff"),
        ("text.jpg", b"hello"),
        ("page.png", page),
        ("drawing.png", drawing),
        ("postscript.png", postscript),
        ("document.gif", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
        ("signature_only.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
        ("notes.txt", b"remember the milk"),
    ):
        corpus.add("text, HTML, SVG, PostScript, PDF under any name", name, content,
                   reason="not an image|corrupt image|not read: convert")  # fmt: skip


def _polyglots(corpus: Corpus) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.py", "raise SystemExit")
    row = "two files in one (image and zip, HTML or script)"
    for kind, suffix, lossy in (("PNG", "png", 0), ("JPEG", "jpg", 4)):
        pixels = corpus.picture()
        content = encoded(Image.fromarray(pixels), kind) + archive.getvalue()
        fate = {"pixels": pixels, "tolerance": lossy}
        corpus.add(row, f"with_zip.{suffix}", content, **fate)
    pixels = corpus.picture()
    comment = b"*/=1;alert(1);/*<script>alert(1)</script>"
    content = encoded(Image.fromarray(pixels), "JPEG", comment=comment)
    corpus.add(row, "with_script.jpg", content, pixels=pixels, tolerance=4)
    before = archive.getvalue() + encoded(Image.fromarray(pixels), "PNG")
    corpus.add(row, "zip_first.png", before, reason="a zip archive: unpack it")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG by hand. rows: a filter byte, then the pixels, for each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header), *more, _chunk(b"IDAT", zlib.compress(rows, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, _chunk(b"IEND", b"")])


def _bombs(corpus: Corpus) -> None:
    row, reason = "decompression bomb: small file, gigapixels", "more than 100 megapixels"
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(2501)) for _ in range(20_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    bomb = [_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b"")]
    corpus.add(row, "bomb.png", b"\x89PNG\r\n\x1a\n" + b"".join(bomb), reason=reason)
    corpus.add(row, "liar.png", _png(60_000, 60_000, 8, 2, b""), reason=reason)
    screen = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"
    corpus.add(row, "screen.gif", screen + frame, reason=reason)
    photo = encoded(Image.fromarray(corpus.picture()), "JPEG")
    at = photo.index(b"\xff\xc0") + 5
    corpus.add(row, "liar.jpg", photo[:at] + struct.pack(">HH", 65000, 65000) + photo[at + 4 :],
               reason=reason)  # fmt: skip
    corpus.add(row, "numbers.ppm", b"P6 99999 99999 255\n", reason=reason)
    rows = b"".join(b"\0" + bytes(96) for _ in range(24))
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    corpus.add("text or profile in a PNG that unpacks to 100 MiB", "text.png",
               _png(32, 24, 8, 2, rows, text), reason="corrupt image: ")  # fmt: skip
    profile = _chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(100 * 2**20), 9))
    corpus.add("text or profile in a PNG that unpacks to 100 MiB", "profile.png",
               _png(32, 24, 8, 2, rows, profile), reason="corrupt image: ")  # fmt: skip
    corpus.add("over 512 MiB", "huge.jpg", lambda path: _sparse(path, 600 * 2**20),
               reason="file of 600 MiB; at most 512 MiB is read")  # fmt: skip
    for width, height in ((30_000, 1), (1, 30_000), (40, 7)):
        content = encoded(Image.fromarray(corpus.picture(height, width)), "PNG")
        corpus.add("30,000 x 1 px, and any side under 8 px", f"{width}_by_{height}.png", content,
                   reason=f"{width} x {height} px; each side must have at least 8 px")  # fmt: skip
    pixels = corpus.picture(8, 30_000)
    corpus.add("30,000 x 8 px", "strip.png", encoded(Image.fromarray(pixels), "PNG"), pixels=pixels)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _modes(corpus: Corpus) -> None:
    grey = corpus.picture()[:, :, 0]
    three = np.repeat(grey[:, :, None], 3, axis=2)
    corpus.add("greyscale, 1-bit", "grey.png", encoded(Image.fromarray(grey), "PNG"), pixels=three)
    bits = corpus.picture()[:, :, 0] > 127
    black = np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2)
    corpus.add("greyscale, 1-bit", "bits.png", encoded(Image.fromarray(bits), "PNG"), pixels=black)

    pixels, alpha = corpus.picture(), corpus.picture()[:, :, :1]
    share = alpha.astype(float) / 255
    white = np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)
    content = encoded(Image.fromarray(np.concatenate([pixels, alpha], axis=2)), "PNG")
    corpus.add("alpha channel", "alpha.png", content, pixels=white, tolerance=1)

    palette = Image.fromarray(corpus.picture()).quantize(16, dither=Image.Dither.NONE)
    plain = np.asarray(palette.convert("RGB"))
    corpus.add("palette", "palette.png", encoded(palette, "PNG"), pixels=plain)
    clear = plain.copy()
    clear[np.asarray(palette) == 3] = 255
    content = encoded(palette, "PNG", transparency=3)
    corpus.add("palette with transparency", "clear.png", content, pixels=clear)
    content = encoded(palette, "GIF", transparency=3)
    corpus.add("palette with transparency", "clear.gif", content, pixels=clear, tolerance=1)

    inks = Image.fromarray(corpus.picture()).convert("CMYK")
    rgb = np.asarray(inks.convert("RGB"))
    corpus.add("CMYK", "inks.jpg", encoded(inks, "JPEG", quality=95), pixels=rgb, tolerance=4)
    corpus.add("CMYK", "inks.tiff", encoded(inks, "TIFF"), pixels=rgb)

    deep = corpus.picture()[:, :, 0].astype(np.uint16) * 257
    eight = np.repeat((deep // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    row = "16 bits a channel"
    corpus.add(row, "deep.png", encoded(Image.fromarray(deep), "PNG"), pixels=eight)
    colours = corpus.picture()
    big = (colours.astype(">u2") * 257).astype(">u2").tobytes()
    rows = b"".join(b"\0" + big[y * 192 : (y + 1) * 192] for y in range(24))
    corpus.add(row, "deep_colour.png", _png(32, 24, 16, 2, rows), pixels=colours)
    for name, mode in (("float.tiff", "F"), ("integer.tiff", "I")):
        image = Image.fromarray(corpus.picture()[:, :, 0]).convert(mode)
        corpus.add("32 bits a pixel, integer or float", name, encoded(image, "TIFF"),
                   reason="32-bit pixels")  # fmt: skip


def _animated(corpus: Corpus) -> None:
    frames = [Image.fromarray(corpus.picture()) for _ in range(3)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        corpus.add("animated GIF, WebP, PNG; TIFF of several pages", f"moving.{kind.lower()}",
                   content, reason=r"animated or with several pages \(3 frames\)")  # fmt: skip
    pixels = corpus.picture()
    content = encoded(Image.fromarray(pixels), "MPO", save_all=True, append_images=frames[1:])
    corpus.add("MPO: JPEG of several pictures", "pair.mpo", content, pixels=pixels, tolerance=4)


def _rotated(corpus: Corpus) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = corpus.picture()
        content = encoded(Image.fromarray(pixels), "PNG", exif=exif)
        with Image.open(io.BytesIO(content)) as image:
            upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        corpus.add("EXIF orientation 1 to 8", f"turned_{orientation}.png", content, pixels=upright)
    for name, exif_bytes in (
        ("broken_exif.jpg", b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20)),
        ("odd_exif.jpg", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0"),
    ):
        pixels = corpus.picture()
        content = encoded(Image.fromarray(pixels), "JPEG", exif=exif_bytes)
        corpus.add("EXIF that is broken or says nonsense", name, content, pixels=pixels,
                   tolerance=4)  # fmt: skip


def _named(corpus: Corpus) -> None:
    row = "name with spaces, quotes, line breaks, control characters, leading dashes"
    for name in (
        " two  spaces .png",
        "it's.png",
        'say "cheese".png',
        "two\nlines.png",
        "tab\tand\rreturn.png",
        "\x1b[31mred\x1b[0m\x07.png",
        "-rf.png",
        "--help",
        "$(touch pwned) `touch pwned` ;touch pwned|.png",
        "%s%n{0}{path}.png",
        "[bold]markup[/red].png",
        "=1+1,2.png",
        "*?~.png",
        "back\\slash\\udce9.png",
        "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
        "\N{CAT FACE}e\N{COMBINING ACUTE ACCENT}.png",
        "CON.png",
    ):
        corpus.add_used(row, name)
    for raw in (b"caf\xe9.png", b"\xff\xfe\x80.png", b"\xed\xa0\x80.png"):
        corpus.add_used("name that is no UTF-8", raw)
    corpus.add_used("name of 255 bytes", b"n" * 251 + b".png")
    corpus.add_used("name of 255 bytes", "é".encode() * 125 + b"x.png")
    corpus.add_used("folder called like an image", "album.jpg/inside.png")
    corpus.add_used("deep folders", "/".join(["deep"] * 40) + "/photo.png")


def _system_files(corpus: Corpus) -> None:
    row, reason = "hidden and system files", "hidden or system file"
    corpus.add(row, ".DS_Store", b"\0\0\0\1Bud1", reason=reason)
    sound = encoded(Image.fromarray(corpus.picture()), "PNG")
    for name in ("._photo.jpg", ".hidden/photo.png", "__MACOSX/photo.png"):
        corpus.add(row, name, sound, reason=reason)
    corpus.add(row, "Thumbs.db", b"\xd0\xcf\x11\xe0" + bytes(64), reason="not an image")


def _links(corpus: Corpus) -> None:
    def to(target: str) -> Make:
        return lambda path: path.symlink_to(target.replace("ROOT", path.parent.parent.name))

    row = "symbolic link out of the folder"
    corpus.add(row, "out.png", to("../../ROOT-outside/private.png"), pixels=picture(1))
    corpus.add(row, "absolute.png", to("/etc/passwd"), reason="not an image")
    corpus.add(row, "endless.png", to("/dev/zero"), reason="not a regular file")
    corpus.add("symbolic link to a folder above", "up", to("../../.."),
               reason="symbolic link to a folder that contains it")  # fmt: skip
    row = "symbolic link to nothing, to itself, to a name that cannot be"
    corpus.add(row, "dangling.png", to("nowhere.png"), reason="broken symbolic link")
    corpus.add(row, "loop.png", to("loop.png"), reason="broken symbolic link|cannot be looked at")
    corpus.add(row, "ping.png", to("pong.png"), reason="broken symbolic link|cannot be looked at")
    corpus.add(row, "pong.png", to("ping.png"), reason="broken symbolic link|cannot be looked at")
    corpus.add(row, "long.png", to("x" * 300), reason="cannot be looked at: File name too long")
    corpus.add("symbolic link to an image inside", "same.png", to("sound_3.png"),
               pixels=picture(3))  # fmt: skip


def _unreadable(corpus: Corpus) -> None:
    sound = encoded(Image.fromarray(corpus.picture()), "PNG")

    def locked(path: Path) -> None:
        path.write_bytes(sound)
        path.chmod(0)

    def locked_folder(path: Path) -> None:
        path.mkdir()
        (path / "photo.png").write_bytes(sound)
        path.chmod(0)

    corpus.add("no permission to read the file", "locked.png", locked,
               reason="cannot be read: Permission denied")  # fmt: skip
    corpus.add("no permission to list the folder", "locked", locked_folder,
               reason="folder cannot be listed: Permission denied")  # fmt: skip
    corpus.add("pipe, socket", "pipe.jpg", lambda path: os.mkfifo(path),
               reason="not a regular file")  # fmt: skip
    corpus.add("pipe, socket", "socket.jpg", _socket, reason="not a regular file")


def _socket(path: Path) -> None:
    """Bound by its name alone: a socket's path must be short."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(before)


def _double(corpus: Corpus) -> None:
    sound = encoded(Image.fromarray(corpus.picture()), "PNG")
    for label, other in (("cat", "dog"), ("dog", "cat")):
        corpus.add("one content under two labels", "both.png", sound, here=label,
                   reason=f"same content under another label: {other}/both.png",
                   only_in_run=True)  # fmt: skip
    pixels = corpus.picture()
    for name in ("copy_1.png", "copy_2.png"):
        corpus.add("one content twice under one label", name,
                   encoded(Image.fromarray(pixels), "PNG"), pixels=pixels)  # fmt: skip
    loose = encoded(Image.fromarray(corpus.picture()), "PNG")
    corpus.add("image beside the class folders", "loose.png", loose, here=".",
               reason="not in a class folder", only_in_run=True)  # fmt: skip


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextmanager
def permissions_that_count() -> Iterator[None]:
    """Has this thread, and those it starts, obey permissions; root need not.

    It lays down two of root's powers, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, for a while; for
    anybody else nothing changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapabilityHeader(0x20080522, 0)
    data = (_CapabilityData * 2)()
    if libc.capget(ctypes.byref(header), data) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be read")
    before = data[0].effective
    data[0].effective = before & ~0b110
    if libc.capset(ctypes.byref(header), data) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be set")
    try:
        yield
    finally:
        data[0].effective = before
        libc.capset(ctypes.byref(header), data)


def table(files: Sequence[HostileFile], manifest: Manifest) -> str:
    """The page's table: a row for each kind, with what became of its files in this manifest."""
    used = {entry.path for entry in manifest.entries}
    reasons = {reject.path: reject.reason for reject in manifest.rejects}
    lines = ["| file | files | what becomes of it |", "|---|---|---|"]
    for kind in dict.fromkeys(file.kind for file in files):
        members = [file for file in files if file.kind == kind]
        paths = [os.path.normpath(f"{f.here}/{os.fsdecode(f.name)}") for f in members]
        sound = HOW.get(kind, "used")
        fates = [sound if path in used else _general(reasons[path]) for path in paths]
        told = "; ".join(dict.fromkeys(fates))
        lines.append(f"| {kind} | {len(members)} | {told} |")
    return "\n".join(lines)


def _general(reason: str) -> str:
    """A reason without the numbers and names of one file."""
    reason = re.sub(r"(another label): .*", r"\1", reason)
    reason = re.sub(r"corrupt image: .*", "corrupt image, with Pillow's reason", reason)
    reason = re.sub(r" \(mode \w\)", "", reason)
    reason = re.sub(r"^\d+ x \d+ px(;| is)", r"its size\1", reason)
    return "left out: " + re.sub(r"\s+", " ", reason)


def rewritten(page: str, content: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def main() -> None:
    """Writes the page's table again."""
    files = hostile_files()
    with tempfile.TemporaryDirectory() as scratch:
        root = make_corpus(Path(scratch) / "photos", files)
        with permissions_that_count():
            manifest = build_manifest(root)
        (root / "cat" / "locked").chmod(0o700)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, table(files, manifest)), encoding="utf-8")


if __name__ == "__main__":
    main()
