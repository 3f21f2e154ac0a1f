"""The report of a run: one self-contained HTML page, or Markdown for a pull request.

It reads the run folder and, for pictures, training and validation images. The test split is never
touched: only the ledger's last look is shown.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from pawtune.data_pipeline.images.pictures import THUMBNAIL_PX
from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.search.errors import UserError
from pawtune.search.markdown import escape_markdown
from pawtune.search.report import words as words
from pawtune.search.report.budget import budget
from pawtune.search.report.data import ReportData, TrialView, read_report_data
from pawtune.search.report.figures import kind_mark
from pawtune.search.report.images import data_content, test_confusion, validation_content
from pawtune.search.report.sections import build_sections
from pawtune.search.results.delivery.out_files import refuse_existing, writing
from pawtune.search.run import Run
from pawtune.search.storage.run_folder import write_text

FORMATS = ("html", "md")
TEMPLATES = Path(__file__).parent / "templates"
MARKDOWN_ROWS = 20


def write_report(
    run: Run,
    out: Path | None = None,
    kind: str = "html",
    images: Path | None = None,
    *,
    force: bool = False,
) -> Path:
    """Writes the report whole or not at all.

    Args:
        run: The run.
        out: The file; by default `report.html` or `report.md` in the run folder.
        kind: `html`, or `md`.
        images: Where the images are now, if they have moved.
        force: Replace `out` where it exists; the run's own report is always replaced.

    Raises:
        UserError: No such format, a file of the run is damaged, or `out` exists or cannot be
            written.
    """
    if kind not in FORMATS:
        raise UserError(f"--format must be {' or '.join(FORMATS)}, received {kind!r}; leave it out")
    if out is not None:
        refuse_existing([expanded(out)], force)
    data = read_report_data(run)
    text = render_markdown(data) if kind == "md" else render_html(data, images)
    target = expanded(out) if out is not None else run.folder.root / f"report.{kind}"
    with writing(target):
        write_text(target, text)
    run.folder.keep_new()
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
        | data_content(data, images)
        | validation_content(data, images)
        | {
            "sections": build_sections(data),
            "parameters": _parameters(data.trials),
            "test_lines": words.test_lines(data),
            "test_classes": data.looks[-1].classes if data.looks else (),
            "test_confusion": test_confusion(data),
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
        md=escape_markdown,
        mark=lambda kind: kind_mark(kind).name,
    )
    return environment


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else format(value, pattern)


def _parameter(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
        "budget": budget(data),
        "commands": words.commands(data),
        "recorded": words.recorded(data),
        "config_text": without_secrets(config_text.strip()),
        "version": version("pawtune"),
        "made": f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
    }
