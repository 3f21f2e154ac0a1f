"""The report's pictures: sample grid, confusion, worst mistakes. No test image is among them."""

from pathlib import Path
from typing import Any

from pawtune.data_pipeline.images.pictures import choose_samples, data_uri, read_thumbnail
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.report.data import ReportData
from pawtune.search.report.figures import Drawing
from pawtune.search.report.result_figures import draw_confusion, draw_reliability
from pawtune.search.results.calibration import measure_calibration
from pawtune.search.results.validation import ValidationView, read_probabilities, read_validation

MAX_GALLERY = 24
MAX_REJECTS = 100
MAX_SAMPLE_CLASSES = 12
SAMPLES_A_CLASS = 8


def data_content(data: ReportData, images: Path | None) -> dict[str, Any]:
    """Counts, rejects and samples, for the template."""
    manifest = data.manifest
    if manifest is None:
        return {"manifest": None}
    counts = manifest.counts()
    samples = _samples(manifest, images or Path(manifest.root))
    return {
        "manifest": manifest,
        "counts": counts,
        "class_totals": {
            label: sum(counts[split][label] for split in counts) for label in manifest.class_names
        },
        "rejects": manifest.rejects[:MAX_REJECTS],
        "samples": samples,
        "samples_note": "" if samples else _images_gone(images or Path(manifest.root)),
    }


def _samples(manifest: Manifest, root: Path) -> list[dict[str, Any]]:
    names = manifest.class_names[:MAX_SAMPLE_CLASSES]
    chosen = choose_samples(manifest.split("train"), names, SAMPLES_A_CLASS)
    rows = []
    for label, entries in chosen.items():
        pictures = [read_thumbnail(root, entry) for entry in entries]
        uris = [data_uri(picture) for picture in pictures if picture is not None]
        if uris:
            rows.append({"label": label, "uris": uris})
    return rows


def _images_gone(root: Path) -> str:
    return f"The images are not in {root} (any more): show them with --data NEWPLACE."


def validation_content(data: ReportData, images: Path | None) -> dict[str, Any]:
    """Confusion and mistakes of the best trial, for the template."""
    best, manifest = data.best, data.manifest
    view: ValidationView | str = "no trial has finished an epoch"
    if best is not None and manifest is not None:
        view = read_validation(data.run.folder.trial(best.trial_id), manifest)
    if isinstance(view, str) or manifest is None:
        return {"validation": None, "validation_problem": view}
    root = images or Path(manifest.root)
    gallery: list[dict[str, Any]] = []
    for mistake in view.mistakes[:MAX_GALLERY]:
        picture = read_thumbnail(root, mistake.entry)
        if picture is not None:
            gallery.append({"mistake": mistake, "uri": data_uri(picture)})
    calibration = None
    if best is not None:
        kept = read_probabilities(data.run.folder.trial(best.trial_id), manifest)
        calibration = measure_calibration(kept, manifest)
    wrong = len(view.mistakes)
    shown = f", the {len(gallery)} most confident" if 0 < len(gallery) < wrong else ""
    return {
        "validation": view,
        "validation_problem": "",
        "confusion": draw_confusion(view.confusion, manifest.class_names, "validation"),
        "mistakes_title": f"{wrong:,} of {view.num_images:,} wrong{shown}" if wrong else
        f"Not one of {view.num_images:,} wrong",
        "reliability": draw_reliability(calibration) if calibration else None,
        "gallery": gallery,
        "gallery_note": _images_gone(root) if wrong and not gallery else "",
    }  # fmt: skip


def test_confusion(data: ReportData) -> Drawing | None:
    """The confusion matrix of the last look at the test split, where its record has one."""
    confusion = data.looks[-1].confusion_table() if data.looks else None
    if confusion is None:
        return None
    return draw_confusion(confusion, data.looks[-1].class_names, "test")
