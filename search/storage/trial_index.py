"""What the files of ended trials say, in one file: who ranks ten thousand need not read them all.

`trials.json` in the run's folder is written by the driver whenever it ranks its trials. `trials/`
stays the truth: what is noted of a trial counts only while its files have the sizes and times that
are noted beside it. A run in an object store has none: there every file is fetched anyway.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pawtune.search.errors import UserError
from pawtune.search.storage.run_folder import RunFolder, TrialFolder, write_text
from pawtune.search.storage.untrusted_files import read_json

FILES = ("spec.json", "status.json", "metrics.csv", "facts.json")
Stamp = list[list[int]]


@dataclass(frozen=True)
class Noted:
    """What is noted of a trial.

    Attributes:
        stamp: Sizes and times of its files then, from `stamp_of`.
        row: Contents of its files, as a row of the leaderboard has them.
    """

    stamp: Stamp
    row: dict[str, Any]


def stamp_of(trial: TrialFolder) -> Stamp:
    """Size and modification time of each of FILES, in nanoseconds; empty for one that is absent."""
    stamp: Stamp = []
    for name in FILES:
        try:
            found = os.stat(f"{trial.root}/{name}")
            stamp.append([found.st_size, found.st_mtime_ns])
        except OSError:
            stamp.append([])
    return stamp


def read_index(run: RunFolder) -> dict[str, Noted]:
    """What is noted, by trial; nothing where the file is missing or damaged."""
    if run.mirror is not None:
        return {}
    try:
        trials = read_json(_index_file(run))["trials"]
        return {key: Noted(noted["stamp"], dict(noted["row"])) for key, noted in trials.items()}
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def write_index(run: RunFolder, trials: Mapping[str, Noted]) -> None:
    """Notes trials that have ended; for the driver. It only saves time: a full disk is no error."""
    if run.mirror is not None:
        return
    lines = (f"{json.dumps(key)}: {json.dumps(vars(noted))}" for key, noted in trials.items())
    with suppress(OSError):
        write_text(_index_file(run), '{"trials": {\n' + ",\n".join(lines) + "\n}}\n")


def _index_file(run: RunFolder) -> Path:
    return run.root / "trials.json"
