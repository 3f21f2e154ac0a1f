"""How well the novelty of a run's models separates pictures of another kind from its photographs.

    python benchmarks/run_novelty.py --run runs/pets --data FOLDER --out out.json

FOLDER holds flowers17.zip. For the best trial of each family: AUROC of drawings, noise and flowers
against the run's validation images, and how many of them are above 1. Nets from scratch, of which
`predict` gives no novelty for this reason, are measured as the others.
"""

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
from measuring import write_report
from numpy.typing import NDArray
from out_of_fold import drawings, noise, read_pictures
from scipy.stats import mannwhitneyu

from pawtune.data_pipeline.images.decode import decode_split, resize_bilinear
from pawtune.models.features.novelty import Novelty, images_kept
from pawtune.search.results.delivery.inference import features_of
from pawtune.search.run import Run, open_run

COUNT = 200


def compare(run: Run, trial_id: str, others: dict[str, list[Any]]) -> dict[str, Any]:
    """AUROC and share above 1 of other pictures, by kind."""
    model, manifest = run.best(trial_id), run.manifest()
    size = run.choose(trial_id).image_size
    assert size is not None
    side = int(size)
    encoder = keras.Model(model.input, features_of(model))

    def encode(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(encoder.predict(pixels, batch_size=64, verbose=0))

    root = Path(manifest.root)
    train, validation = (
        encode(decode_split(root, manifest.split(split), side)) for split in ("train", "validation")
    )
    kept = np.random.default_rng(0).permutation(len(train))[: images_kept(train.shape[1])]
    novelty = Novelty.fitted(train[kept], validation)
    own = novelty.score(validation)
    found: dict[str, Any] = {}
    for kind, pictures in others.items():
        pixels = np.stack([resize_bilinear(np.asarray(picture), side) for picture in pictures])
        other = novelty.score(encode(pixels))
        area = mannwhitneyu(other, own).statistic / (len(other) * len(own))
        found[kind] = {"AUROC": round(float(area), 3), "above 1": float((other > 1).mean())}
    return found


def main() -> None:
    """Prints and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = open_run(options.run)
    others = {
        "drawings": drawings(COUNT),
        "noise": noise(COUNT),
        "flowers": read_pictures(options.data / "flowers17.zip", COUNT)[0],
    }
    report: dict[str, Any] = {}
    best = {row.family: row for row in reversed(run.rows()) if row.best_epoch is not None}
    for family, row in best.items():
        found = compare(run, row.trial_id, others)
        report[family] = {"trial": row.name, "accuracy": row.best_val_accuracy, **found}
        print(family, report[family], flush=True)
    write_report(options.out, report)


if __name__ == "__main__":
    main()
