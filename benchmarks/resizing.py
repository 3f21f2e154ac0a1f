"""What resizing by area brings solved heads, beside bilinear: by set, image size and taps.

    python benchmarks/resizing.py --data FOLDER --sizes 40 64 96 160 224 --out resizing.json

FOLDER is that of `out_of_fold.py`. Ridge heads on MobileNetV2, penalty by leave-one-out, on 60% of
the photographs, scored on the rest, over several random splits; differences are of pairs.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_table, write_report
from numpy.typing import NDArray
from out_of_fold import WEIGHTS, Picture, read_pictures

from pawtune.data_pipeline.images.decode import RESIZINGS, Resizing, resize
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.features.tap_encoder import TapEncoder
from pawtune.models.training.solved_heads import decompose, solve_ridge
from pawtune.search.out_of_fold.predictions import choose_penalty

SETS = {"cats and dogs": "cats_and_dogs_filtered.zip", "flowers17": "flowers17.zip"}
TRAIN_SHARE = 0.6


def encode(
    encoder: TapEncoder, pictures: list[Picture], resizing: Resizing
) -> dict[str, NDArray[np.float32]]:
    """What heads take, by name: (N, F)."""
    parts = []
    for start in range(0, len(pictures), 256):
        chosen = [np.asarray(picture) for picture in pictures[start : start + 256]]
        pixels = np.stack([resize(image, encoder.image_size, resizing) for image in chosen])
        parts.append(encoder.encode(pixels))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        "last block": found["average"].astype(np.float32),
        "all blocks": np.concatenate(
            [found[name] for name in ("inner", "average", "maximum")], axis=1
        ).astype(np.float32),
    }


def accuracy(features: NDArray[np.float32], labels: NDArray[np.int32], seed: int) -> float:
    """Of a head that was solved on a random part, on the rest."""
    order = np.random.default_rng(seed).permutation(len(labels))
    train, rest = np.split(order, [int(TRAIN_SHARE * len(order))])
    classes = int(labels.max()) + 1
    decomposition = decompose(features[train], features[rest])
    _, penalty = choose_penalty(decomposition, labels[train], classes)
    head = solve_ridge(decomposition, labels[train], classes, penalty)
    return float((head.val_logits.argmax(axis=1) == labels[rest]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 160, 224])
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, archive in SETS.items():
        pictures, labels = read_pictures(options.data / archive, 3000)
        side = int(np.median([min(picture.size) for picture in pictures]))
        for size in options.sizes:
            encoder = TapEncoder(
                load_backbone("MobileNetV2", size, options.data / WEIGHTS), "MobileNetV2"
            )
            found = {resizing: encode(encoder, pictures, resizing) for resizing in RESIZINGS}
            for taps in ("last block", "all blocks"):
                scores = {
                    resizing: [
                        accuracy(found[resizing][taps], labels.astype(np.int32), seed)
                        for seed in range(options.splits)
                    ]
                    for resizing in RESIZINGS
                }
                gains = 100 * (np.array(scores["area"]) - scores["bilinear"])
                error = gains.std(ddof=1) / np.sqrt(len(gains))
                rows.append(
                    {
                        "set": name,
                        "px": size,
                        "times smaller": round(side / size, 1),
                        "taps": taps,
                        "bilinear": round(float(np.mean(scores["bilinear"])), 4),
                        "area": round(float(np.mean(scores["area"])), 4),
                        "points gained": f"{gains.mean():+.2f} ± {error:.2f}",
                    }
                )
                print_table(rows[-1:])
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
