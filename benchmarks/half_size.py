"""A net whose first epochs are on images of half the side, beside one that always sees whole ones.

    python benchmarks/half_size.py --data cats_and_dogs_filtered.zip --out half_size.json

The first net of the conv family's portfolio, on one core; seconds of processor are those of
training and scoring, without start-up. Takes 10 to 15 minutes at 160 px.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from measuring import machine, print_table, write_report

from pawtune.data_pipeline.cache import cache_dir
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.sources.resolve import resolve_source
from pawtune.data_pipeline.splitting.build import build_manifest
from pawtune.models.build import build_network
from pawtune.models.families.conv import CONV
from pawtune.models.model_spec import TrainSpec
from pawtune.models.precision import precision
from pawtune.models.training.live_training import train_live


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="as `pawtune run` takes it")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--recipes", nargs="+", default=["20:0", "20:0.5", "28:0.6"],
                        help="epochs:share of them on half the side")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    cache = cache_dir()
    manifest = build_manifest(resolve_source(options.data, cache=cache), cache=cache)
    images, labels = {}, {}
    for split in ("train", "validation"):
        entries = manifest.split(split)
        images[split] = decode_split(Path(manifest.root), entries, options.image_size)
        labels[split] = manifest.labels(split)
    rows: list[dict[str, Any]] = []
    for recipe in options.recipes:
        epochs, share = recipe.split(":")
        params = {
            **CONV.portfolio[0],
            "image_size": options.image_size,
            "half_size_share": float(share),
        }
        model, train = CONV.to_spec(params, TrainSpec(epochs=int(epochs), seed=options.seed))
        with precision(options.policy):
            core = CONV.build_core(model, len(manifest.class_names), {}, seed=options.seed)
            network = build_network(
                model, core, seed=options.seed, with_half=train.half_size_share > 0
            )
            began = time.process_time()
            results = train_live(
                network,
                images["train"],
                labels["train"],
                images["validation"],
                labels["validation"],
                train,
            )
            accuracies = [result.metrics["val_accuracy"] for result in results]
        rows.append(
            {
                "epochs": train.epochs,
                "of them on half the side": train.half_size_epochs,
                "processor s": round(time.process_time() - began),
                "best validation": round(max(accuracies), 4),
                "last": round(accuracies[-1], 4),
            }
        )
        print(rows[-1], flush=True)
    print_table(rows)
    write_report(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
