"""Figures for the report: matplotlib drawings as inline SVG that follows the page's colours.

Colours are CSS variables in the page and fall back to the Okabe-Ito palette, which people with
any common colour blindness can tell apart; the marker's shape always shows the family too.
Text stays text: it takes the page's font, can be searched and read aloud.
"""

import html
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from pawtune.models.families.table import known_families


@dataclass(frozen=True)
class Mark:
    """How a kind of trials is drawn.

    Attributes:
        name: CSS variable of its colour on the page, and class of its marker there.
        colour: Colour of the drawn mark.
        marker: Matplotlib's.
    """

    name: str
    colour: str
    marker: str


# Drawn in these, shown in the CSS variables of the same names.
INK, MUTED, GRID, SURFACE = "#1b1f24", "#6b7280", "#d9dde3", "#fefefe"
# Of families, in the order of their table, as far as any colour blindness can tell four apart.
FAMILY_MARKS = (
    Mark("family-1", "#0072b2", "o"),
    Mark("family-2", "#d55e00", "s"),
    Mark("family-3", "#e69f00", "^"),
    Mark("family-4", "#56b4e9", "v"),
)
BASELINE_MARK = Mark("baseline", "#009e73", "D")
RIGHT, WRONG = BASELINE_MARK.colour, FAMILY_MARKS[1].colour  # of predictions
FAILED = "#cc79a7"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SURFACE: "surface",
    FAILED: "failed",
    **{mark.colour: mark.name for mark in (*FAMILY_MARKS, BASELINE_MARK)},
}
WIDTH_INCHES = 5.0  # 360 units: at 390 px of screen still near its drawn size

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called "$"
    "font.size": 10.0,
    "axes.labelsize": 10.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "path.simplify": False,
}


@dataclass(frozen=True)
class Drawing:
    """A figure in the page.

    Attributes:
        svg: An `<svg>` element that describes itself to those who cannot see it.
        caption: One or two sentences that say where to look.
    """

    svg: str
    caption: str


def kind_mark(kind: str) -> Mark:
    """How a family, or baselines, are drawn; from the fifth family on marks come again."""
    families = list(known_families())
    if kind not in families:
        return BASELINE_MARK if kind == "baseline" else FAMILY_MARKS[-1]
    return FAMILY_MARKS[families.index(kind) % len(FAMILY_MARKS)]


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib as the report needs it, for the time of a block."""
    with mpl.rc_context(STYLE):
        yield


def new_axes(height_inches: float, width_inches: float = WIDTH_INCHES) -> Axes:
    """Axes on a figure of their own, laid out to fit; call inside `styled()`."""
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    return figure.add_subplot()


def mark_trial(artist: Artist, trial_id: str) -> None:
    """Ties a line to its trial: the page shows its name and highlights it."""
    artist.set_gid(_address(trial_id))


def mark_trials(points: PathCollection, trial_ids: list[str]) -> None:
    """Ties each point of a scatter to its trial."""
    points.set_urls([_address(trial_id) for trial_id in trial_ids])


def _address(trial_id: str) -> str:
    return "trial:" + re.sub(
        r"[^\w.-]", "_", trial_id
    )  # an untrusted folder may be called anything


def to_svg(axes: Axes, key: str, alt: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure of some axes as an `<svg>` element for a page.

    Args:
        axes: Any axes of the figure.
        key: Unique in the page: identifiers inside the figure begin with it.
        alt: Description of the figure in words.
        tips: Text shown when the pointer is over a trial, by trial id.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    target = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    svg = target.getvalue()
    svg = _shrink(svg[svg.index("<svg") :])
    svg = _keep_needed_ids(_tie_trials(svg, tips or {}), key)
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    opening = re.match(r"<svg[^>]*>", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert opening is not None
    assert box is not None
    words = html.escape(alt, quote=True)
    head = f'<svg {box.group()} data-figure="{key}" role="img" aria-label="{words}">'
    return f"{head}<title>{words}</title>" + svg[opening.end() :]


def _shrink(svg: str) -> str:
    """Leaves out what a page does not need: half of the bytes, and matplotlib's own fonts."""
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>",
        "",
        svg,
        flags=re.DOTALL,
    )
    svg = re.sub(r"font-family: [^;\"]+(?:; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', _round_coordinates, svg)
    return re.sub(r">\s*\n\s*<", ">\n<", svg)


def _round_coordinates(match: re.Match[str]) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(match.group().split()).join((" ", "")))


def _tie_trials(svg: str, tips: Mapping[str, str]) -> str:
    """Turns marked lines and points into groups that carry their trial and a tip."""

    def group(match: re.Match[str]) -> str:
        trial_id = match.group(1)
        tip = html.escape(tips.get(trial_id, trial_id), quote=True)
        return f'<g class="t" data-trial="{trial_id}"><title>{tip}</title>'

    svg = re.sub(r'<a xlink:href="trial:([\w.-]+)"[^>]*>', group, svg).replace("</a>", "</g>")
    return re.sub(r'<g id="trial:([\w.-]+)"[^>]*>', group, svg)


def _keep_needed_ids(svg: str, key: str) -> str:
    """Drops identifiers that nothing refers to, and makes the others the page's own."""
    used = set(re.findall(r"(?:href=\"#|url\(#)([\w.:-]+)", svg))

    def rename(match: re.Match[str]) -> str:
        return f' id="{key}-{match.group(1)}"' if match.group(1) in used else ""

    svg = re.sub(r' id="([^"]*)"', rename, svg)
    svg = re.sub(r'xlink:href="#', f'href="#{key}-', svg)
    return svg.replace("url(#", f"url(#{key}-")
