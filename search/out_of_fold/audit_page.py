"""The page of an audit: pictures, a choice for each by keyboard, and a file of the choices.

One self-contained HTML file. Choices stay in the browser (local storage) until they are saved as
relabel.csv, which `pawtune run --relabel` applies; the images' folder is never changed.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from pawtune.data_pipeline.images.pictures import data_uri, read_thumbnail
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.data_pipeline.splitting.manifest_io import escape
from pawtune.search.out_of_fold.audit import Audit, Copy, LabelIssue, Outlier
from pawtune.search.storage.run_folder import RunFolder, write_text

MOST_OF_A_KIND = 300  # pictures of 5 kB: a page of 5 MB at most


def write_page(run: RunFolder, audit: Audit, manifest: Manifest) -> Path:
    """Writes `audit/index.html`.

    Args:
        run: The run.
        audit: Findings of the audit.
        manifest: Its splits; `root` is where the images are now. Where they are gone, the page
            has their names only.
    """
    entries = {entry.path: entry for entry in manifest.entries}
    root = Path(manifest.root)
    cards = [
        *(_label_card(entries, root, issue) for issue in audit.labels[:MOST_OF_A_KIND]),
        *(_copy_card(entries, root, copy) for copy in audit.copies[:MOST_OF_A_KIND]),
        *(_outlier_card(entries, root, outlier) for outlier in audit.outliers[:MOST_OF_A_KIND]),
    ]
    environment = Environment(
        loader=PackageLoader("pawtune.search.out_of_fold"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("audit.html.j2").render(
        run=run.name, audit=audit, cards=cards, classes=manifest.class_names,
        fingerprint=manifest.fingerprint, left_out=_left_out(audit),
    )  # fmt: skip
    target = run.audit_dir / "index.html"
    write_text(target, page)
    run.keep_new()
    return target


def _left_out(audit: Audit) -> int:
    found = (audit.labels, audit.copies, audit.outliers)
    return sum(max(0, len(kind) - MOST_OF_A_KIND) for kind in found)


def _label_card(entries: dict[str, ManifestEntry], root: Path, issue: LabelIssue) -> dict[str, Any]:
    return {
        **_card("label", entries[issue.path], root, issue.suggested),
        "text": f"labelled {issue.label} ({issue.label_probability:.0%}), rather "
        f"{issue.suggested} ({issue.probability:.0%})",
    }


def _copy_card(entries: dict[str, ManifestEntry], root: Path, copy: Copy) -> dict[str, Any]:
    # The training image is offered: without it the validation image says again what it should.
    first, second = entries[copy.path], entries[copy.other_path]
    offered, other = (first, second) if first.split == "train" else (second, first)
    picture = read_thumbnail(root, other)
    return {
        **_card("copy", offered, root, other.label),
        "other_uri": data_uri(picture) if picture is not None else "",
        "other_path": escape(other.path),
        "text": f"{offered.split} ({offered.label}) and {other.split} ({other.label}), "
        f"distance {copy.distance:.2f}",
    }


def _outlier_card(
    entries: dict[str, ManifestEntry], root: Path, outlier: Outlier
) -> dict[str, Any]:
    entry = entries[outlier.path]
    text = f"{entry.label}, distance to its neighbours {outlier.distance:.2f}"
    return {**_card("outlier", entry, root, entry.label), "text": text}


def _card(kind: str, entry: ManifestEntry, root: Path, suggested: str) -> dict[str, Any]:
    picture = read_thumbnail(root, entry)
    return {
        "kind": kind,
        "path": escape(entry.path),
        "sha256": entry.sha256,
        "split": entry.split,
        "label": entry.label,
        "suggested": suggested,
        "uri": data_uri(picture) if picture is not None else "",
    }
