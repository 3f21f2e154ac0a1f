"""The ledger of looks at the test split: every look is on it, whoever looks at the same time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawtune.models.baselines import BASELINES
from pawtune.models.families.table import check_limits
from pawtune.search.config.search_config import load_config
from pawtune.search.errors import UserError
from pawtune.search.results import look_ledger
from pawtune.search.results.evaluation_record import EvaluationRecord, cells_of
from pawtune.search.results.look_ledger import read_ledger, record_look
from pawtune.search.shared_work.backbones import Families, baselines_of
from pawtune.search.storage.run_folder import RunFolder

MISTAKE = {"path": "a.jpg", "label": "c0", "predicted": "c1", "probability": 0.5}
LOOK = {"accuracy": 0.5, "correct": 1, "n": 2, "interval_95": [0.1, 0.9], "trial_id": "0001"}


def make_look(confusion: np.ndarray[Any, Any], **more: Any) -> EvaluationRecord:
    names = [f"c{number}" for number in range(len(confusion))]
    cells = cells_of(confusion.tolist())
    content = {**LOOK, "class_names": names, "confusion_cells": cells, **more}
    return EvaluationRecord.model_validate(content)


LOOKER = """
import sys
from pathlib import Path
from pawtune.search.results.look_ledger import record_look
from pawtune.search.storage.run_folder import RunFolder
from tests.test_look_ledger import make_look
import numpy as np
for _ in range(10):
    print(record_look(RunFolder(Path(sys.argv[1])), make_look(np.eye(2, dtype=int))))
"""


def test_looks_at_the_same_time_are_all_on_record(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOOKER, str(tmp_path)]
    lookers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        for _ in range(4)
    ]
    numbers = [int(line) for looker in lookers for line in looker.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 41))
    assert [look.looks for look in read_ledger(RunFolder(tmp_path))] == list(range(1, 41))


def test_a_look_at_many_classes_is_small_and_the_fourteenth_is_no_worse(tmp_path: Path) -> None:
    """1,000 classes: as a table the confusion alone took 5 MB a look, and 64 MB were the limit."""
    run = RunFolder(tmp_path)
    confusion = np.diag(np.full(1000, 45)) + np.diag(np.full(999, 5), 1)
    for _ in range(15):
        number = record_look(run, make_look(confusion, mistakes=[MISTAKE] * 1000))
    assert number == 15
    assert run.test_ledger.stat().st_size < 2 * 2**20  # two thirds of it mistakes
    *earlier, last = read_ledger(run)
    np.testing.assert_array_equal(last.confusion_table(), confusion)
    assert len(last.mistakes) == 1000
    assert all(look.confusion_table() is None for look in earlier)


def test_a_look_recorded_as_a_whole_table_is_still_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    table = [[3, 1], [0, 4]]
    old = {**LOOK, "class_names": ["a", "b"], "confusion": table}
    run.test_ledger.write_text(json.dumps(old))  # no line end
    np.testing.assert_array_equal(read_ledger(run)[0].confusion_table(), table)
    assert record_look(run, make_look(np.eye(2, dtype=int))) == 2
    assert len(read_ledger(run)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": 1.5},
        {"interval_95": [0.1]},
        {"class_names": ["a"], "confusion_cells": [[0, 1, 2]]},
        {"class_names": ["a"], "confusion_cells": [[0, 0, -2]]},
        {"class_names": ["a", "b"], "confusion": [[1, 2], [3]]},
        {"baseline": {"name": "b"}},
    ],
)
def test_a_look_that_pawtune_test_never_writes_is_refused(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    run = RunFolder(tmp_path)
    run.test_ledger.write_text(json.dumps({**LOOK, **wrong}))
    with pytest.raises(UserError, match=r"test\.jsonl: each line must be a look .*, received"):
        read_ledger(run)


def test_a_ledger_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ledger, "MAX_LOOKS", 2)
    run = RunFolder(tmp_path)
    line = json.dumps(LOOK) + "\n"
    run.test_ledger.write_text(3 * line)
    with pytest.raises(UserError, match="may hold 2 looks"):
        read_ledger(run)


def test_a_baseline_that_best_would_refuse_is_left_out_before_training() -> None:
    config = load_config(None, [], {"data": "images", "baselines": "on"})
    families = Families(("conv", "transfer"))
    said: list[str] = []
    assert [spec.name for spec in baselines_of(config, families, 432, said.append)] == [*BASELINES]
    assert said == []
    rest = baselines_of(config, families, 433, said.append)
    assert [spec.name for spec in rest] == [name for name in BASELINES if name != "tutorial_1"]
    assert len(said) == 1
    assert "tutorial_1 is left out with 433 classes" in said[0]
    for spec in rest:
        check_limits(spec.model, 433)
