"""Memory and time of the corrected validation accuracy over many trials.

    python benchmarks/selection_memory.py                      # 1,000 x 50,000 x 1,000
    python benchmarks/selection_memory.py --trials 200 --images 5000 --classes 100

Writes one file of stored predictions, which every trial has as a link (200 GB otherwise), and runs
what `leaderboard`, `best` and `report` run: the choice of the winner played again 1,000 times.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from pawtune.search.results.leaderboard import Row
from pawtune.search.results.selection_bias import correct_selection, read_scores
from pawtune.search.storage.run_folder import RunFolder


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = RunFolder(Path(scratch))
        labels = np.arange(asked.images, dtype=np.int32) % asked.classes
        rows = write_trials(run, labels, asked.trials, asked.classes)
        started = time.monotonic()
        scores = read_scores(run, rows, labels, asked.classes)
        assert scores is not None
        read = time.monotonic() - started
        found = correct_selection(*scores, labels)
        seconds = time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{asked.trials:,} trials x {asked.images:,} images x {asked.classes:,} classes: "
        f"{seconds:.0f} s ({read:.0f} s of them reading), at most {peak_mb:,.0f} MB resident; "
        f"corrected accuracy {found.accuracy:.4f}"
    )


def write_trials(
    run: RunFolder, labels: np.ndarray[tuple[int], np.dtype[np.int32]], trials: int, classes: int
) -> list[Row]:
    """Trials with predictions that are right for about half of the images."""
    rng = np.random.default_rng(0)
    predictions = np.full((len(labels), classes), 0.5 / classes, np.float32)
    named = np.where(rng.random(len(labels)) < 0.5, labels, (labels + 1) % classes)
    predictions[np.arange(len(labels)), named] = 0.5
    first = run.root / "predictions.npy"
    np.save(first, predictions)
    rows = []
    for number in range(1, trials + 1):
        folder = run.new_trial(f"{number:04d}")
        folder.best_predictions.parent.mkdir(parents=True)
        folder.spec_file.write_text("{}")
        os.link(first, folder.best_predictions)
        rows.append(
            Row(
                rank=number,
                trial_id=folder.trial_id,
                name=folder.trial_id,
                family="conv",
                status="completed",
                best_val_accuracy=0.5,
                best_val_loss=1.0,
                train_accuracy=0.5,
                best_epoch=1,
                epochs=1,
                seconds=1.0,
                num_weights=1,
                params={},
            )
        )
    return rows


if __name__ == "__main__":
    main()
