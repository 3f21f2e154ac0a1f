"""`pawtune preview`: what is in a data set, in numbers and pictures, before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.images.decode import area_from, decode_split
from pawtune.data_pipeline.images.preview import augmentation_grids, sample_grid
from pawtune.data_pipeline.safe_files import shown, write_atomically
from pawtune.data_pipeline.sources.resolve import named_as_given, resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.data_pipeline.splitting.folder_tree import OUTPUT_MARK
from pawtune.data_pipeline.splitting.label_tables.label_table import LabelFile
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.words import count
from pawtune.search.errors import UserError
from pawtune.search.progress.reporter import Reporter

SHOWN_REJECTS = 20


@dataclass(frozen=True)
class Preview:
    """A data set's counts, and the pictures that were drawn of it."""

    manifest: Manifest
    pictures: tuple[Path, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        majority = self.manifest.majority("validation")
        return {
            "root": self.manifest.root,
            "class_names": list(self.manifest.class_names),
            "counts": self.manifest.counts(),
            "files": len(self.manifest.entries) + len(self.manifest.rejects),
            "rejects": [{"path": r.path, "reason": r.reason} for r in self.manifest.rejects],
            "notes": list(self.manifest.notes),
            "majority": dict(zip(("class", "share"), majority, strict=True)),
            "warnings": list(self.manifest.warnings),
            "pictures": [str(path) for path in self.pictures],
        }

    def show(self, console: Any) -> None:
        """For people: a table of counts, what is left out and why, where the pictures are."""
        counts = self.manifest.counts()
        # As text, not as markup: a folder may be called "[/red]".
        table = Table(title=Text(shown(self.manifest.root)), title_justify="left")
        table.add_column("class")
        for split in counts:
            table.add_column(split, justify="right")
        for label in self.manifest.class_names:
            table.add_row(Text(label), *(str(counts[split].get(label, 0)) for split in counts))
        console.print(table)
        for note in self.manifest.notes:
            print(shown(note))
        label, share = self.manifest.majority("validation")
        print(f"validation is {share:.1%} {shown(label)}: a constant answer scores that")
        used, rejected = len(self.manifest.entries), len(self.manifest.rejects)
        print(f"{count(used + rejected, 'file')}: {used} used, {rejected} left out")
        for reject in self.manifest.rejects[:SHOWN_REJECTS]:
            print(f"left out: {shown(reject.path)}: {shown(reject.reason)}")
        if len(self.manifest.rejects) > SHOWN_REJECTS:
            print(f"… and {len(self.manifest.rejects) - SHOWN_REJECTS} more (--json lists all)")
        for warning in self.manifest.warnings:
            print(f"warning: {shown(warning)}")
        for path in self.pictures:
            print(f"picture: {shown(path)}")


def preview_data(
    data: str,
    out: Path,
    *,
    image_size: int,
    seed: int,
    labels: LabelFile | None = None,
    min_class_size: int = 0,
    reporter: Reporter,
) -> Preview:
    """Splits a data set as a search would, and draws training images.

    Test images are counted, never decoded.

    Raises:
        DataError: As a search would.
        UserError: `out` cannot be written, or is a folder of the data.
    """
    cache = cache_dir()
    root = resolve_source(data, cache=cache, progress=reporter.stage)
    _refuse_data(out, root)
    with named_as_given(data):
        manifest = build_manifest(
            root,
            seed=seed,
            labels=labels,
            min_class_size=min_class_size,
            area_from=area_from(image_size),
            cache=cache,
            progress=reporter.stage,
        )
    first = manifest.split("train")[:1]
    (image,) = decode_split(Path(manifest.root), first, image_size)
    mark = "Pictures by `pawtune preview`: never taken for data.\n"
    try:
        write_atomically(out / OUTPUT_MARK, mark)
        pictures = [
            sample_grid(manifest, out / "samples.png", size=image_size),
            *augmentation_grids(image, out),
        ]
    except OSError as error:
        raise UserError(
            f"--out must be a folder that can be written, received {shown(out)!r}: "
            f"{error.strerror or error}; give another folder with --out"
        ) from error
    reporter.close()
    return Preview(manifest, tuple(pictures))


def _refuse_data(out: Path, root: Path) -> None:
    """A folder of pictures is never taken for data again: it must not hold any."""
    inside = out.resolve().is_relative_to(root.resolve())
    if inside and out.is_dir() and any(out.iterdir()) and not (out / OUTPUT_MARK).exists():
        raise UserError(
            f"--out must be a folder of its own, received {shown(out)!r}, a folder of the data; "
            "give a new one, for example --out preview"
        )
