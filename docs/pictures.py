"""Makes the pictures of README.md and docs/seeing.md; needs chromium and, for the terminal, tmux.

    python docs/pictures.py report RUN_FOLDER docs/images/report.png
    python docs/pictures.py terminal docs/images/terminal.png 60 -- pawtune run --data PHOTOS

The report is that of the run folder. The terminal is the screen that the command shows after so
many seconds; it is then interrupted, as by Ctrl-C.
"""

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from pawtune.search.run import open_run
from tests.browser import run_browser

COLUMNS, LINES = 110, 22


def main(arguments: list[str]) -> None:
    """One picture."""
    match arguments:
        case ["report", run, out]:
            picture_report(run, Path(out))
        case ["terminal", out, seconds, "--", *command]:
            picture_terminal(command, float(seconds), Path(out))
        case _:
            raise SystemExit(__doc__)


def picture_report(run: str, out: Path) -> None:
    """The top of a report."""
    from pawtune.search.report.page import write_report

    with tempfile.TemporaryDirectory() as folder:
        page = write_report(open_run(run), Path(folder) / "report.html")
        shoot(page.as_uri(), out, width=1180, height=1500)


def picture_terminal(command: list[str], seconds: float, out: Path) -> None:
    """The screen that a command shows after a while."""
    tmux = ["tmux", "-L", "pictures"]
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    subprocess.run([*tmux, "new-session", "-d", *size, *command], check=True)
    try:
        time.sleep(seconds)
        shown = subprocess.run(
            [*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True
        ).stdout
        subprocess.run([*tmux, "send-keys", "C-c"], check=True)
        time.sleep(10)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    text = Text.from_ansi(f"$ {' '.join(command)}\n{shown.rstrip()}")
    console.print(text)
    style = (
        "<style>body{margin:14px 18px;background:#0c0c0c!important;color:#e4e8ee!important}"
        "pre,code{font:14px/18px monospace!important}</style></head>"
    )
    page = console.export_html(inline_styles=True, theme=MONOKAI).replace("</head>", style)
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(page)
        file.flush()
        lines = len(text.wrap(console, COLUMNS))
        shoot(f"file://{file.name}", out, width=970, height=28 + 18 * lines)


def shoot(address: str, out: Path, *, width: int, height: int) -> None:
    """A page as a small PNG."""
    with run_browser() as browser:
        browser.call("Emulation.setScrollbarsHidden", hidden=True)
        browser.open(address, width=width, height=height)
        time.sleep(0.5)
        browser.screenshot(out, whole=False)
    with Image.open(out) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    small.save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
