"""Reading a CSV file, its separator seen from the first line; other formats are named."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.safe_files import read_regular, shown

MAX_TABLE_BYTES = 2**30
EXCEL_SEPARATOR = re.compile(r"sep=([^\w\s]|\t)\r?\n")  # a line that Excel writes before the names
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_FORMATS = {
    b"{": "JSON", b"[": "JSON", b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "an Excel file (.xlsx) or a ZIP archive", b"PAR1": "Parquet",
    b"\xd0\xcf\x11\xe0": "an Excel file (.xls)", b"\x1f\x8b": "compressed (gzip)",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table as read. lines: of each row in the file, from 2."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> list[str]:
        """All values of a column, without surrounding blanks."""
        index = self.columns.index(name)
        return [row[index].strip() for row in self.rows]


def read_table(path: Path) -> Table:
    """Reads a table, its separator seen from the first line.

    Raises:
        DataError: it cannot be read, is no CSV, or a row has more or fewer values than there are
            columns.
    """
    name = shown(path.name)
    text = _read_text(path)
    declared = EXCEL_SEPARATOR.match(text)
    content = text[declared.end() :] if declared else text
    before = 1 if declared else 0
    first = content.partition("\n")[0]
    separator = declared[1] if declared else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    try:
        columns = tuple(word.strip() for word in next(reader, []))
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{name} line {reader.line_num + before}: every row must have {len(columns)} "
                    f"values as the first line, received {len(row)}"
                )
            rows.append(tuple(row))
            lines.append(reader.line_num + before)
    except csv.Error as error:
        raise DataError(f"{name} line {reader.line_num + before}: {shown(str(error))}") from error
    if len(columns) < 2 or len(set(columns)) < len(columns) or not rows:
        raise DataError(
            f"{name}: the first line must name two or more columns, each once, and rows must "
            f"follow; received {shown(first[:80])!r} and {len(rows)} rows"
        )
    return Table(name, columns, tuple(rows), tuple(lines))


def _read_text(path: Path) -> str:
    rule = f"--labels must name a CSV file, received {shown(path)}"
    try:
        data = read_regular(path, MAX_TABLE_BYTES)
    except OSError as error:
        raise DataError(f"{rule}: {error.strerror}") from error
    start = data[:1000].removeprefix(BYTE_ORDER_MARK).lstrip()
    other = next((kind for mark, kind in OTHER_FORMATS.items() if start.startswith(mark)), None)
    try:
        if other is None:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        other = "not UTF-8 text"
    raise DataError(
        f"{rule}, which is {other}; save it as CSV (UTF-8): a first line such as image,label and "
        "a row for each image"
    )
