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
from pawtune.search.results.look_ledger import look_confusion, read_ledger, record_look
from pawtune.search.shared_work.backbones import Families, baselines_of
from pawtune.search.storage.run_folder import RunFolder


def make_look(confusion: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    names = [f"c{number}" for number in range(len(confusion))]
    look = {"accuracy": 0.5, "correct": 1, "n": 2, "interval_95": [0.1, 0.9], "trial_id": "0001"}
    return {**look, "class_names": names, "confusion": confusion.tolist(), **more}


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
    assert [look["looks"] for look in read_ledger(RunFolder(tmp_path))] == list(range(1, 41))


def test_a_look_at_many_classes_is_small_and_the_fourteenth_is_no_worse(tmp_path: Path) -> None:
    """1,000 classes: as a table the confusion alone took 5 MB a look, and 64 MB were the limit."""
    run = RunFolder(tmp_path)
    confusion = np.diag(np.full(1000, 45)) + np.diag(np.full(999, 5), 1)
    for _ in range(15):
        number = record_look(run, make_look(confusion, mistakes=[{"path": "a.jpg"}] * 1000))
    assert number == 15
    assert run.test_ledger.stat().st_size < 2**20
    *earlier, last = read_ledger(run)
    np.testing.assert_array_equal(look_confusion(last), confusion)
    assert len(last["mistakes"]) == 1000
    assert all("confusion_cells" not in look for look in earlier)


def test_a_look_recorded_as_a_whole_table_is_still_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.test_ledger.write_text(json.dumps(make_look(np.array([[3, 1], [0, 4]]))))  # no line end
    np.testing.assert_array_equal(look_confusion(read_ledger(run)[0]), [[3, 1], [0, 4]])
    assert record_look(run, make_look(np.eye(2, dtype=int))) == 2
    assert len(read_ledger(run)) == 2


def test_a_ledger_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ledger, "MAX_LOOKS", 2)
    run = RunFolder(tmp_path)
    line = json.dumps(make_look(np.eye(2))) + "\n"
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
