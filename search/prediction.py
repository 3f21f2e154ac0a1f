"""Labels for image files from a model that `pawtune best` wrote."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.checkpoints import read_card
from search.inference import find_images, predict_files
from search.quiet import load_tensorflow


def predict_labels(model_file: Path, images: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Streams one record a file: `path`, `label`, `probabilities` by class name.

    A file that cannot be read has `label` None, no probabilities, and a `reason`.

    Raises:
        UserError: The model file is none of pawtune's.
        DataError: A path does not exist, or a folder holds no images.
    """
    card = read_card(model_file)
    paths = find_images(images)
    load_tensorflow()
    import keras

    model = keras.models.load_model(model_file, compile=False, safe_mode=True)
    names = card["class_names"]
    for item in predict_files(model, paths, card["spec"]["model"]["image_size"]):
        if item.probabilities is None:
            yield {"path": item.path, "label": None, "probabilities": {}, "reason": item.reason}
            continue
        yield {
            "path": item.path,
            "label": names[int(np.argmax(item.probabilities))],
            "probabilities": {
                name: float(p) for name, p in zip(names, item.probabilities, strict=True)
            },
        }
