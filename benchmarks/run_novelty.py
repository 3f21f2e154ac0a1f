"""How well the novelty of a run's models separates pictures of another kind from its photographs.

    python benchmarks/run_novelty.py --run runs/pets --data FOLDER --out out.json

FOLDER holds flowers17.zip. For the best trial of each family: AUROC of drawings, noise and flowers
against the run's validation images, and how many of them are above 1.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from measuring import write_report
from numpy.typing import NDArray
from out_of_fold import Picture, drawings, noise, read_pictures
from PIL import Image
from scipy.stats import mannwhitneyu

from pawtune.data_pipeline.images.decode import resize_bilinear
from pawtune.search.run import Run, open_run

COUNT = 200


def scores(run: Run, trial_id: str, pictures: list[Picture]) -> NDArray[np.float32]:
    """Novelty of pictures by a trial's model."""
    opened = run.predictor(trial_id)
    assert opened.predict_novelty is not None
    size = opened.image_size
    assert size is not None
    pixels = np.stack([resize_bilinear(np.asarray(picture), size) for picture in pictures])
    parts = [
        opened.predict_novelty(pixels[at : at + 50])[:, -1] for at in range(0, len(pixels), 50)
    ]
    return np.concatenate(parts)


def main() -> None:
    """Prints and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = open_run(options.run)
    manifest = run.manifest()
    root = Path(manifest.root)
    known = [Image.open(root / e.path).convert("RGB") for e in manifest.split("validation")]
    others = {
        "drawings": drawings(COUNT),
        "noise": noise(COUNT),
        "flowers": read_pictures(options.data / "flowers17.zip", COUNT)[0],
    }
    report: dict[str, Any] = {}
    best = {row.family: row for row in reversed(run.rows()) if row.best_epoch is not None}
    for family, row in best.items():
        own = scores(run, row.trial_id, known)
        found: dict[str, Any] = {"trial": row.name, "accuracy": row.best_val_accuracy}
        for kind, pictures in others.items():
            other = scores(run, row.trial_id, pictures)
            area = mannwhitneyu(other, own).statistic / (len(other) * len(own))
            found[kind] = {"AUROC": round(float(area), 3), "above 1": float((other > 1).mean())}
        report[family] = found
        print(family, found, flush=True)
    write_report(options.out, report)


if __name__ == "__main__":
    main()
