"""The report of a run: one self-contained HTML page, or Markdown for a pull request.

It reads the run folder and, for pictures, training and validation images. The test split is never
touched: only the ledger's last look is shown.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from data_pipeline.manifest import Manifest
from search import figures_history as history
from search import figures_results as results
from search import figures_space as space
from search import report_words as words
from search.errors import UserError
from search.figures import Drawing
from search.importance import MIN_TRIALS
from search.pictures import THUMBNAIL_PX, choose_samples, data_uri, read_thumbnail
from search.redaction import without_secrets
from search.report_data import ReportData, TrialView, read_report_data
from search.run import Run
from search.run_folder import write_text
from search.validation import ValidationView, read_validation

FORMATS = ("html", "md")
TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN_ROWS = 20
MAX_GALLERY = 24
MAX_REJECTS = 100
MAX_SAMPLE_CLASSES = 12
SAMPLES_A_CLASS = 8


@dataclass(frozen=True)
class Section:
    """A part of the page: drawings, and what is missing in words."""

    key: str
    title: str
    intro: str = ""
    drawings: tuple[Drawing, ...] = ()
    missing: tuple[str, ...] = ()
    small: bool = False


def write_report(
    run: Run, out: Path | None = None, kind: str = "html", images: Path | None = None
) -> Path:
    """Writes the report whole or not at all.

    Args:
        run: The run.
        out: The file; by default `report.html` or `report.md` in the run folder.
        kind: `html`, or `md`.
        images: Where the images are now, if they have moved.

    Raises:
        UserError: No such format, a file of the run is damaged, or `out` cannot be written.
    """
    if kind not in FORMATS:
        raise UserError(f"--format must be {' or '.join(FORMATS)}, got {kind!r}; leave it out")
    data = read_report_data(run)
    text = render_markdown(data) if kind == "md" else render_html(data, images)
    target = out.expanduser() if out is not None else run.folder.root / f"report.{kind}"
    try:
        write_text(target, text)
    except OSError as error:
        raise UserError(
            f"--out must be a file that can be written, got {str(target)!r}: {error.strerror}"
        ) from error
    return target


def render_markdown(data: ReportData) -> str:
    """Headline, the first rows of the leaderboard, and how to reproduce, as GitHub Markdown."""
    best = data.best
    content = _common(data) | {
        "rows": MARKDOWN_ROWS,
        "best_name": best.row.name if best else "",
        "best_params": best.row.params if best else {},
    }
    return _environment(autoescape=False).get_template("report.md.j2").render(content)


def render_html(data: ReportData, images: Path | None = None) -> str:
    """The page."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    content = (
        _common(data)
        | _data_content(data, images)
        | _validation_content(data, images)
        | {
            "sections": _sections(data),
            "parameters": _parameters(data.trials),
            "failures": [trial for trial in data.trials if trial.row.status == "failed"],
            "thumbnail_px": THUMBNAIL_PX,
            "css": (TEMPLATES / "report.css").read_text(encoding="utf-8"),
            "script": script,
            # The page may run this one script: nothing that a file name smuggles in.
            "script_hash": f"sha256-{digest}",
        }
    )
    return _environment(autoescape=True).get_template("report.html.j2").render(content)


def _environment(autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        number=_number,
        parameter=_parameter,
        duration=words.duration,
        short=lambda text, size: text if len(text) <= size else f"{text[: size - 1]}…",
        md=_escape_markdown,
    )
    return environment


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def _parameter(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escape_markdown(text: object) -> str:
    escaped = " ".join(str(text).split())
    for character in "\\`*_|<>[]":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped


def _parameters(trials: Sequence[TrialView]) -> list[str]:
    names = dict.fromkeys(name for trial in trials for name in trial.row.params)
    return [name for name in names if name != "family"]  # the column `kind` has it


def _common(data: ReportData) -> dict[str, Any]:
    config_text = data.run.folder.config_file.read_text(encoding="utf-8")
    return {
        "name": data.run.name,
        "subtitle": words.subtitle(data),
        "notices": words.notices(data),
        "cards": words.headline(data),
        "board": data.ranked,
        "budget": words.budget(data),
        "commands": words.commands(data),
        "recorded": words.recorded(data, config_text),
        "config_text": without_secrets(config_text.strip()),
        "version": version("pawtune"),
        "made": f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
    }


def _sections(data: ReportData) -> list[Section]:
    failed = sum(trial.row.status == "failed" for trial in data.trials)
    return [
        _section("result", "Result", [history.draw_standing(data), history.draw_history(data)],
                 "No trial has finished an epoch, so there is no result yet."),
        Section("leaderboard", "Leaderboard",
                missing=() if data.trials else ("No trial was proposed yet.",)),
        _section("curves", "Learning curves",
                 [history.draw_learning_curves(data, family) for family in data.families],
                 "No trial has finished an epoch."),
        _parameter_section(data),
        _slice_section(data),
        _section("cost", "Cost",
                 [results.draw_trade_off(data, cost) for cost in results.COST_WORDS],
                 "Two trials with a finished epoch are needed to compare size and time."),
        Section("mistakes", "Mistakes",
                "The best trial's best epoch on the validation split."),
        Section("data", "Data"),
        _section("budget", "Budget", [history.draw_time_line(data)],
                 "No trial has ended, so there are no times yet."),
        *([Section("failures", "Failures", f"{words.count(failed, 'trial')} failed.")]
          if failed else []),
        Section("reproduce", "Reproduce",
                "The same seed gives the same splits and the same training; proposals also depend "
                "on the order in which trials end, so only a search of one trial at a time "
                "proposes the same again."),
    ]  # fmt: skip


def _section(key: str, title: str, drawings: list[Drawing | None], missing: str) -> Section:
    drawn = tuple(drawing for drawing in drawings if drawing is not None)
    return Section(key, title, drawings=drawn, missing=() if drawn else (missing,))


def _parameter_section(data: ReportData) -> Section:
    missing = []
    important = [space.draw_importance(data, family) for family in data.families]
    for family, drawing in zip(data.families, important, strict=True):
        if drawing is None:
            usable = sum(trial.usable for trial in data.of_family(family))
            missing.append(
                f"{family}: importance needs {MIN_TRIALS} trials with a finished epoch that "
                f"lie in the search space and differ; there are {usable} with one."
            )
    drawings = [*important, *(space.draw_parallel(data, family) for family in data.families)]
    drawn = tuple(drawing for drawing in drawings if drawing is not None)
    return Section(
        "parameters",
        "Parameters",
        "Bars: how much a parameter had to do with being among the best fifth of its family "
        "(PED-ANOVA; stopped trials count with the best they had reached). Lines: every trial "
        "through its parameters."
        if drawn
        else "",
        drawn,
        tuple(missing) or (() if drawn else ("No trial was proposed yet.",)),
    )


def _slice_section(data: ReportData) -> Section:
    drawings = tuple(space.draw_slices(data))
    return Section(
        "slices",
        "Slices",
        "The score against one parameter at a time; each point is a trial." if drawings else "",
        drawings,
        () if drawings else ("Two trials that differ are needed to compare parameters.",),
        small=True,
    )


def _data_content(data: ReportData, images: Path | None) -> dict[str, Any]:
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


def _validation_content(data: ReportData, images: Path | None) -> dict[str, Any]:
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
    wrong = len(view.mistakes)
    shown = f", the {len(gallery)} most confident" if 0 < len(gallery) < wrong else ""
    return {
        "validation": view,
        "validation_problem": "",
        "confusion": results.draw_confusion(view.confusion, manifest.class_names),
        "mistakes_title": f"{wrong:,} of {view.num_images:,} wrong{shown}" if wrong else
        f"Not one of {view.num_images:,} wrong",
        "gallery": gallery,
        "gallery_note": _images_gone(root) if wrong and not gallery else "",
    }  # fmt: skip
