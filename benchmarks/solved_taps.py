"""What a solved head sees, and how its blocks weigh: accuracy by set, image size and taps.

    python benchmarks/solved_taps.py --data FOLDER --out solved_taps.json

FOLDER is that of `out_of_fold.py`. Heads on MobileNetV2, solved on 70% of the photographs for each
of several penalties; the best of these on 15% is scored on the other 15%, over several random
splits. Differences are of pairs, from the best of `average`.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, print_table, write_report
from numpy.typing import NDArray
from out_of_fold import WEIGHTS, read_pictures

from pawtune.data_pipeline.images.decode import resize
from pawtune.models.backbones.backbone_graph import BlockEnd, find_block_ends
from pawtune.models.backbones.frozen_backbone import load_backbone
from pawtune.models.backbones.taps import Taps, choose_taps, gather
from pawtune.models.features.tap_encoder import Features, TapEncoder
from pawtune.models.training.solved_heads import decompose, solve_logistic, solve_ridge

SETS = (
    ("flowers17.zip", 224),
    ("cats_and_dogs_filtered.zip", 160),
    ("cats_and_dogs_filtered.zip", 224),
)
RIDGE = (0.03, 0.1, 0.3, 1.0, 3.0)
LOGISTIC = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
# Taps, whether blocks weigh alike, penalties of the ridge or of the logistic regression.
CHOICES: tuple[tuple[str, Taps, bool], ...] = (
    ("ridge", "average", False),
    ("ridge", "all", False),
    ("ridge", "all", True),
    ("ridge", "all_moments", False),
    ("ridge", "all_moments", True),
    ("ridge", "top_moments", True),
    ("logistic", "average", False),
    ("logistic", "all", False),
    ("logistic", "top_moments", False),
)


def accuracies(
    x: NDArray[np.float32],
    groups: list[int] | None,
    kind: str,
    labels: NDArray[np.int32],
    seed: int,
) -> tuple[float, float]:
    """Best validation accuracy over the penalties, and that head's on the test part."""
    order = np.random.default_rng(seed).permutation(len(labels))
    train, validation, test = np.split(order, [int(0.7 * len(x)), int(0.85 * len(x))])
    parts = decompose(x[train], x[np.concatenate([validation, test])], None, groups)
    solve = {"ridge": solve_ridge, "logistic": solve_logistic}[kind]
    found = []
    for penalty in RIDGE if kind == "ridge" else LOGISTIC:
        head = solve(parts, labels[train], int(labels.max()) + 1, penalty)
        right = head.val_logits.argmax(axis=1) == labels[np.concatenate([validation, test])]
        found.append((right[: len(validation)].mean(), right[len(validation) :].mean()))
    best = max(found, key=lambda pair: pair[0])
    return float(best[0]), float(best[1])


def measure(
    features: Features, ends: tuple[BlockEnd, ...], labels: NDArray[np.int32], splits: int
) -> list[dict[str, Any]]:
    """A row for each of `CHOICES`."""
    rows = []
    plain: NDArray[np.float64] | None = None
    for kind, taps, alike in CHOICES:
        chosen = choose_taps(taps, ends)
        x = gather(features, chosen, ends).astype(np.float32)
        groups = [tap.width for tap in chosen] if alike else None
        pairs = np.array([accuracies(x, groups, kind, labels, seed) for seed in range(splits)])
        both = pairs.mean(axis=1)
        plain = both if plain is None else plain
        gains = 100 * (both - plain)
        rows.append(
            {
                "head": kind,
                "taps": taps,
                "blocks alike": "yes" if alike else "",
                "features": x.shape[1],
                "validation": round(float(pairs[:, 0].mean()), 4),
                "test": round(float(pairs[:, 1].mean()), 4),
                "points over the first": f"{gains.mean():+.2f} ± "
                f"{gains.std(ddof=1) / np.sqrt(splits):.2f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--images", type=int, default=3000, help="at most so many of a set")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for archive, size in SETS:
        pictures, labels = read_pictures(options.data / archive, options.images)
        backbone = load_backbone("MobileNetV2", size, options.data / WEIGHTS)
        encoder = TapEncoder(backbone, "MobileNetV2")
        pixels = np.stack([resize(np.asarray(each), size, "bilinear") for each in pictures])
        found = measure(
            encoder.encode(pixels),
            find_block_ends(backbone),
            labels.astype(np.int32),
            options.splits,
        )
        rows += [{"set": archive.removesuffix(".zip"), "px": size, **row} for row in found]
        print_table(rows[-len(found) :])
    write_report(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
