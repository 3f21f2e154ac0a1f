"""The reference for novelty: features of a run's images, computed by one of its models.

They are computed once for a model, while the images can be read, and kept in the run folder.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.decode import decode_split
from pawtune.data_pipeline.splitting.manifest import Manifest, ManifestEntry
from pawtune.models.families.family import Backbone
from pawtune.models.families.table import family_of
from pawtune.models.features.novelty import Novelty, images_kept
from pawtune.search.errors import UserError
from pawtune.search.results.delivery.inference import features_of
from pawtune.search.results.delivery.novelty_file import (
    novelty_bytes,
    novelty_record,
    parse_novelty,
)
from pawtune.search.results.model_choice import ModelChoice
from pawtune.search.storage.run_folder import RunFolder, read_json, write_bytes, write_json
from pawtune.search.storage.untrusted_files import read_array

if TYPE_CHECKING:
    import keras

MOST_VALIDATION = 1000
SHARD = 256
Progress = Callable[[str, int, int], None]


def find_novelty(
    run: RunFolder,
    choice: ModelChoice,
    model: "keras.Model",
    manifest: Manifest,
    progress: Progress | None = None,
) -> Novelty | None:
    """The novelty reference of a model: kept in the run, or computed now from its images and kept.

    Args:
        run: The run.
        choice: The model.
        model: The same, complete.
        manifest: Its splits; the images are looked for where it says.
        progress: Called with (name, images done, images in all).

    Returns:
        None for a vote, for a net trained from scratch, whose features know little besides its
        classes (measured: docs/trust.md), or where images cannot be read.

    Raises:
        UserError: What the run keeps is damaged.
    """
    features = features_of(model)
    if features is None or choice.image_size is None or not _has_backbone(run, choice):
        return None
    width = int(features.shape[-1])
    name = choice.trial_id + ("-refit" if choice.kind == "refit" else "")
    if choice.kind == "ensemble":  # of many trials, whose ids would make too long a name
        name = f"average-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    record, array = run.novelty_dir / f"{name}.json", run.novelty_dir / f"{name}.npy"
    if record.exists():
        return _read(record, array, width)
    try:
        found = _measure(model, choice.image_size, manifest, images_kept(width), progress)
    except DataError:
        return None
    if found is not None:
        try:
            write_bytes(array, novelty_bytes(found))
            write_json(record, novelty_record(found))
            run.keep_new()
        except OSError:
            pass  # a folder that cannot be written costs time at the next call, nothing else
    return found


def _has_backbone(run: RunFolder, choice: ModelChoice) -> bool:
    spec = run.spec_of(choice.row.trial_id).model
    return any(isinstance(need, Backbone) for need in family_of(spec).needs(spec, bank_views=0))


def _measure(
    model: "keras.Model",
    image_size: int,
    manifest: Manifest,
    most: int,
    progress: Progress | None,
) -> Novelty | None:
    import keras

    train = _sample(manifest.split("train"), most)
    validation = _sample(manifest.split("validation"), MOST_VALIDATION)
    if not train or not validation:
        return None
    entries, root, parts = [*train, *validation], Path(manifest.root), []
    encoder = keras.Model(model.input, features_of(model))
    for start in range(0, len(entries), SHARD):
        pixels = decode_split(root, entries[start : start + SHARD], image_size)
        parts.append(encoder.predict(pixels, batch_size=64, verbose=0))
        if progress is not None:
            progress("novelty", start + len(pixels), len(entries))
    found = np.concatenate(parts)
    return Novelty.fitted(found[: len(train)], found[len(train) :])


def _sample(entries: Sequence[ManifestEntry], most: int) -> list[ManifestEntry]:
    """At most `most` of the entries, always the same ones."""
    rows = np.random.default_rng(0).permutation(len(entries))[:most]
    return [entries[row] for row in np.sort(rows)]


def _read(record: Path, array: Path, width: int) -> Novelty:
    content = read_json(record)
    try:
        return parse_novelty(content, lambda shape: read_array(array, shape), width)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{array} must hold features of training images, received {error}; delete {record}, "
            "`pawtune best` makes them again"
        ) from error
