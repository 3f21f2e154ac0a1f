"""A pseudo-terminal for tests: runs Python in it and shows what is on its screen."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, RenderableType

TOKEN = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|(\r)|(\n)|([^\x1b\r\n]+)")


@dataclass
class Screen:
    """As much of a terminal as rich uses: text, colours, cursor up, erasing.

    Attributes:
        lines: What is on it.
        frames: All text that was ever written to it, in order.
        colours: Every colour that was asked for.
        overflowed: Lines that were longer than the terminal is wide: they would have wrapped.
    """

    width: int
    lines: list[str] = field(default_factory=lambda: [""])
    frames: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    overflowed: list[str] = field(default_factory=list)
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> "Screen":
        for match in TOKEN.finditer(text):
            arguments, command, back, down, plain = match.groups()
            if plain:
                self._write(plain)
            elif back:
                self.column = 0
            elif down:
                self.row += 1
                self.column = 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif command == "A":
                self.row = max(0, self.row - int(arguments or 1))
            elif command == "K":
                self.lines[self.row] = ""
            elif command == "m" and re.search(r"(?:^|;)(?:3[0-8]|4[0-8]|9\d)", arguments):
                self.colours.append(arguments)
        return self

    def _write(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        line = line[: self.column] + text + line[self.column + len(text) :]
        self.lines[self.row] = line
        self.frames.append(text)
        self.column += len(text)
        if self.column > self.width:
            self.overflowed.append(line)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


def run_in_terminal(
    code: str,
    width: int,
    once_shown: tuple[bytes, Callable[[], None]] | None = None,
    **environment: str,
) -> Screen:
    """Runs Python code with stdout and stderr on a terminal of `width` columns.

    As soon as the words of `once_shown` were written to it, its function is called.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**clean, "TERM": "xterm-256color", **environment},
    )
    os.close(slave)
    output = b""
    with contextlib.suppress(OSError):  # Linux says so when the other end is gone
        while block := os.read(master, 65536):
            output += block
            if once_shown is not None and once_shown[0] in output:
                once_shown[1]()
                once_shown = None
    os.close(master)
    assert process.wait(300) == 0, output.decode()
    return Screen(width).feed(output.decode())


def drawn(width: int, *shown: RenderableType) -> str:
    """The text of what rich draws, in so many columns."""
    console = Console(width=width, file=io.StringIO(), record=True)
    for each in shown:
        console.print(each)
    return console.export_text()
