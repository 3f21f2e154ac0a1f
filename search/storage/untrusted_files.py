"""A run folder may be untrusted: what is read from it is what pawtune writes, or it is refused.

Files are read up to a limit, never through a symbolic link or from a pipe; JSON is plain values;
an array has the shape that is due before its first byte is taken. Words lose what a terminal would
act upon. Every refusal is one line with the file, the rule, and what was found.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pawtune.data_pipeline.safe_files import read_regular, shown
from pawtune.search.errors import UserError
from pawtune.search.trial_report import METRICS

MAX_JSON_BYTES = 64 * 2**20
MAX_CSV_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 2**20
MAX_SECONDS = 1e12  # of a time or a duration: far beyond any, and safe to calculate with
RATIOS = frozenset({"accuracy", "val_accuracy", "val_balanced_accuracy"})
REQUIRED_METRICS = tuple(
    name for name in METRICS if name not in ("learning_rate", "images_per_second")
)
RESTORE = "restore the file, or start the search again"
RESTORE_TRIAL = "restore the file, or delete the trial's folder"


def read_text(path: Path) -> str:
    """A text file of a run folder; bytes that are no UTF-8 are replaced.

    Raises:
        UserError: It is missing, no regular file, or larger than it can be.
    """
    return _read(path, MAX_TEXT_BYTES).decode("utf-8", errors="replace")


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return read_regular(path, max_bytes, follow_links=False)
    except OSError as error:
        raise UserError(
            f"a run folder's {shown(path.name)} must be readable: {shown(path)}: "
            f"{error.strerror or error}; {RESTORE}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run folder.

    Raises:
        UserError: The file is missing, or no JSON object.
    """
    value = parse_json(path, _read(path, MAX_JSON_BYTES))
    if not isinstance(value, dict):
        raise UserError(f"{shown(path)} must hold a JSON object, received {type(value).__name__}")
    return value


def parse_json(path: Path, text: bytes | str) -> Any:
    """JSON from a file of a run folder; NaN and its like, which are none, are refused.

    Raises:
        UserError: It is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        sentence = "nested too deeply" if isinstance(error, RecursionError) else shown(str(error))
        raise UserError(
            f"a run folder's {shown(path.name)} must be readable JSON: {shown(path)}: {sentence}; "
            f"{RESTORE}"
        ) from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def read_rows(path: Path, integer_columns: frozenset[str]) -> list[dict[str, float]]:
    """A trial's metrics: a row an epoch, every cell a number in its range.

    Raises:
        UserError: With the first cell that is not.
    """
    text = _read(path, MAX_CSV_BYTES).decode("utf-8", errors="replace")
    try:
        rows = [
            {k: int(v) if k in integer_columns else float(v) for k, v in row.items()}
            for row in csv.DictReader(io.StringIO(text, newline=""))
        ]
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{shown(path)} must hold numbers only: {shown(str(error))[:200]}; "
            "delete the trial's folder to leave it out"
        ) from error
    last = 0.0
    for row in rows:
        for name in (*REQUIRED_METRICS, *(name for name in row if name not in REQUIRED_METRICS)):
            value = row.get(name, math.nan)
            ratio = name in RATIOS
            if not math.isfinite(value) or (ratio and not 0 <= value <= 1):
                within = " from 0 to 1" if ratio else ""
                raise UserError(
                    f"{shown(path)}: {shown(name)} must be a number{within}, received {value}; "
                    f"{RESTORE_TRIAL}"
                )
        epoch = row.get("epoch", 0)
        if not last < epoch < 2**31:
            raise UserError(
                f"{shown(path)}: epochs must count upwards from 1, received {epoch} after "
                f"{last:g}; {RESTORE_TRIAL}"
            )
        last = epoch
    return rows


def read_array(path: Path, shape: Sequence[int]) -> NDArray[np.float32]:
    """An array of floats of the shape given, as `np.save` wrote it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no such array; nothing of it was unpickled, or allocated by its header.
    """
    limit = 8 * math.prod(shape) + 20_000
    try:
        data = read_regular(path, limit, follow_links=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    return parse_array(data, shape)


def parse_array(data: bytes, shape: Sequence[int]) -> NDArray[np.float32]:
    """The same from bytes.

    Raises:
        ValueError: They are no such array.
    """
    size = math.prod(shape)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        found, fortran, dtype = reader(stream)
    except Exception as error:  # a header is Python's own syntax: it breaks in many ways
        text = shown(" ".join(str(error).split()))[:200]
        raise ValueError(f"it is no array of NumPy's ({text})") from error
    if dtype.kind != "f" or dtype.itemsize > 8 or dtype.hasobject:
        raise ValueError(f"expected floats, received {dtype.str!r:.60}")
    if tuple(found) != tuple(shape):
        raise ValueError(f"expected the shape {tuple(shape)}, received {found!r:.60}")
    if len(data) - stream.tell() < size * dtype.itemsize:
        raise ValueError("it is cut short")
    values = np.frombuffer(data, dtype, size, stream.tell())
    shaped = values.reshape(shape, order="F" if fortran else "C")
    return shaped.astype(np.float32, copy=False)


def is_number(value: Any, limit: float) -> TypeGuard[float]:
    """Whether a value of JSON's is a finite number of at most `limit`, either sign."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -limit <= value <= limit  # also false for NaN
    )
