r"""Accuracy of a whole search within a time budget, against the best of an expert's heads.

    python benchmarks/best_answer.py --data flowers17.zip \
        --weights mobilenet_v2_1.0_224_no_top.h5 --budget 12m --split-seeds 0 1 2 \
        --expert-path expert --out best_answer.json

For each split seed both read the same folder of train/, validation/ and test/ images, nothing
cached: the expert's script (`expert.py`: 32 logistic heads), then `pawtune run` with its default
families. Either's best on validation is scored on test, once. `--expert-path` as in
`time_to_accuracy.py`.

Takes the budget and two minutes for each split seed. Let nothing else run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, print_table, run_pawtune, score_on_test, write_report
from peer_runs import link_splits
from time_to_accuracy import add_race_options, measure_expert

from pawtune.search.storage.run_folder import RunFolder, read_json


def main() -> None:
    """Measure, print, write."""
    options = parse_options()
    rows, commands = [], []
    for seed in options.split_seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            images = link_splits(options.data, folder, ("train", "validation", "test"), seed)
            expert = measure_expert(options, images)
            arguments = [
                *("--data", str(images), "--weights", str(options.weights)),
                *("--image-size", str(options.image_size), "--time-budget", options.budget),
                *("--trials", "10000"),
            ]
            done = run_pawtune(arguments, folder / "runs", "search", folder / "cache")
            commands += [expert.command, done.command]
            row = {
                "split seed": seed,
                "expert s": round(expert.seconds, 1),
                "expert validation": round(expert.best, 4),
                "expert test": round(expert.test, 4),
                "pawtune s": round(done.seconds, 1),
                "trials": len(done.outcome["leaderboard"]),
                "pawtune validation": round(done.accuracies()[0], 4),
                "pawtune test": round(score_on_test(done), 4),
                "winner": done.outcome["leaderboard"][0]["name"],
            }
            rows.append(row | best_by_stage(done.run))
            print(rows[-1], flush=True)
    means = {
        name: round(sum(row[name] for row in rows) / len(rows), 4)
        for name in rows[0]
        if name.endswith(("validation", "test", "solved", "trained", "fine-tuned"))
    }
    print_table([*rows, dict.fromkeys(rows[0], "") | means | {"split seed": "mean"}])
    write_report(options.out, {"machine": machine(), "rows": rows, "commands": commands})


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_race_options(parser, image_size=224)
    parser.add_argument("--budget", default="12m", help="time budget of a search")
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[0])
    parser.set_defaults(trials=32)  # of the expert
    return parser.parse_args()


def best_by_stage(run: RunFolder) -> dict[str, Any]:
    """Best validation accuracy of heads solved and trained, and of fine-tuned tops."""
    best: dict[str, float] = dict.fromkeys(("solved", "trained", "fine-tuned"), float("nan"))
    for trial in run.trials():
        rows = trial.read_metrics()
        if not rows:
            continue
        model = read_json(trial.spec_file)["model"]
        stage = "fine-tuned" if model["family"] == "finetune" else "trained"
        if model.get("head", "trained") != "trained":
            stage = "solved"
        reached = max(row["val_accuracy"] for row in rows)
        best[stage] = reached if best[stage] != best[stage] else max(best[stage], reached)
    return {stage: round(accuracy, 4) for stage, accuracy in best.items()}


if __name__ == "__main__":
    main()
