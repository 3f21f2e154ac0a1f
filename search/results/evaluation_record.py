"""One look at the test split, as the ledger keeps it: a JSON object a line of `test.jsonl`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, ValidationError, model_validator

from pawtune.data_pipeline.safe_files import shown
from pawtune.search.errors import UserError
from pawtune.search.results.metrics import ClassScore, Comparison, Count, Majority, Share
from pawtune.search.results.reference import ReferenceKind
from pawtune.search.storage.records import MaybeWords, Record, Words
from pawtune.search.storage.untrusted_files import parse_json

Cell = tuple[Count, Count, Count]


@dataclass(frozen=True)
class BaselineScore:
    """What a model is compared with, on the same test images.

    Attributes:
        name: The trial's.
        accuracy: 0 to 1.
        kind: The best baseline by validation; where none ran, the first trial of the search: the
            plainest model of its portfolio, for `transfer` a solved head on the last block. Older
            records know baselines alone.
    """

    name: Words
    accuracy: Share
    kind: ReferenceKind = "best baseline"


@dataclass(frozen=True)
class TestMistake:
    """A test image that the model names wrong, by its path below the image root."""

    __test__ = False

    path: Words
    label: Words
    predicted: Words
    probability: Share


class EvaluationRecord(Record):
    """A look at the test split.

    Attributes:
        time: When, in ISO 8601.
        accuracy: `correct` of `n` images.
        interval_95: Wilson's interval of the accuracy.
        trial_id: Id of the scored trial; of an ensemble, its members' ids joined by "+".
        model: `trial`, `refit` or `ensemble`.
        title: The same for people; empty in older records.
        looks: Number of this look, from 1.
        class_names: Names of the classes, in the order of the confusion.
        confusion_cells: (true class, predicted class, images) of each cell that is not empty.
        confusion: The whole table, as older records have it.
        mistakes: Every image named wrong, the most confident first.
    """

    model_config = ConfigDict(strict=False)

    time: MaybeWords = None
    accuracy: Share
    correct: Count
    n: Count
    interval_95: tuple[Share, Share]
    trial_id: Words
    model: Words = "trial"
    title: Words = ""
    looks: Count = 1
    calibration_error: Share | None = None
    calibration_error_before: Share | None = None
    majority: Majority | None = None
    baseline: BaselineScore | None = None
    comparison: Comparison | None = None
    class_names: tuple[Words, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    confusion_cells: tuple[Cell, ...] = ()
    confusion: tuple[tuple[Count, ...], ...] = ()
    mistakes: tuple[TestMistake, ...] = ()

    @model_validator(mode="after")
    def _confusion_fits_the_classes(self) -> Self:
        classes = len(self.class_names)
        if any(max(true, predicted) >= classes for true, predicted, _ in self.confusion_cells):
            raise ValueError(f"the confusion has a cell beyond its {classes} classes")
        if self.confusion and {len(self.confusion), *map(len, self.confusion)} != {classes}:
            raise ValueError(f"the confusion is no table of its {classes} classes")
        return self

    @classmethod
    def parse(cls, path: Path, line: str) -> Self:
        """A line of the ledger.

        Raises:
            UserError: It is not what `pawtune test` writes.
        """
        try:
            return cls.model_validate(parse_json(path, line))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            text = f"{place} {first['msg']}, received {first['input']!r:.60}"
            raise UserError(
                f"{shown(path)}: each line must be a look that `pawtune test` recorded: "
                f"{shown(text)}; restore the file, or move it away"
            ) from error

    def confusion_table(self) -> NDArray[np.int64] | None:
        """(C, C) images by true and predicted class; None where the record keeps none."""
        if self.confusion:
            return np.array(self.confusion, np.int64)
        if not self.confusion_cells:
            return None
        cells = np.array(self.confusion_cells, np.int64)
        table = np.zeros((len(self.class_names),) * 2, np.int64)
        table[cells[:, 0], cells[:, 1]] = cells[:, 2]
        return table

    def in_short(self) -> Self:
        """Without what only the last look is shown with: 3 MB at 1,000 classes, 50,000 images."""
        bulky = ("classes", "confusion", "confusion_cells", "mistakes")
        return self.model_copy(update=dict.fromkeys(bulky, ()))


def cells_of(confusion: Sequence[Sequence[int]]) -> list[Cell]:
    """The cells of a confusion that are not empty."""
    table = np.array(confusion)
    return [(int(a), int(b), int(table[a, b])) for a, b in np.argwhere(table)]
