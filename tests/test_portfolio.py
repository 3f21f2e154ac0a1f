"""What a search proposes first, before the sampler has its say."""

from pathlib import Path

import pytest

from pawtune.models.families.table import find_family
from pawtune.search.config.search_config import SearchConfig
from pawtune.search.storage.run_folder import create_run_folder
from pawtune.search.tuning.optuna_searcher import FIRST_TURN, OptunaSearcher

ALL = ["conv", "transfer", "finetune"]
HEADS = find_family("transfer").portfolio


@pytest.mark.parametrize(
    ("families", "trials", "expected"),
    [
        (["transfer"], 32, ["transfer"] * len(HEADS)),
        (["transfer"], 12, ["transfer"] * 6),
        (ALL, 24, ["transfer"] * 5 + ["finetune", "conv"] + ["transfer"] * 5),
        (ALL, 8, ["transfer"] * 5 + ["finetune", "conv"]),
    ],
)  # fmt: skip
def test_every_family_has_its_turn_and_half_of_the_trials_are_left(
    runs_dir: Path, families: list[str], trials: int, expected: list[str]
) -> None:
    config = SearchConfig(data="sample", image_size=96, trials=trials, runs_dir=str(runs_dir))
    run = create_run_folder(runs_dir, "new")
    searcher = OptunaSearcher(config, run, families=families, num_classes=2)
    points = list(searcher._first)
    proposed = [searcher.suggest(str(number)) for number in range(len(points))]
    searcher.close()
    assert [point["family"] for point in points] == expected
    assert [given["spec"]["model"]["family"] for given in proposed] == expected  # type: ignore[index]


def test_heads_are_solved_and_one_is_trained() -> None:
    first = [point["head"] for point in HEADS[:FIRST_TURN]]
    assert first == ["ridge", "ridge", "ridge", "logistic", "trained"]
    assert {point["head"] for point in HEADS[FIRST_TURN:]} == {"ridge", "logistic"}
    assert len({(p["head"], p.get("taps"), p.get("regularisation")) for p in HEADS}) == len(HEADS)
