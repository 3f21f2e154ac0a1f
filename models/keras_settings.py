"""Keras' settings are ours: TensorFlow, channels last, float32, whatever this machine prefers.

`~/.keras/keras.json` and KERAS_BACKEND are read by every process that imports Keras. Layers and
saved models record some of these settings, and a search must compute the same everywhere.
"""

from __future__ import annotations

import os
import sys

from pawtune.models.errors import ModelError

# Read by Keras when it is imported; the last two would cut every training short.
CUTS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


def choose_backend() -> None:
    """Before Keras is imported: it computes with TensorFlow, and trains as long as it is asked to.

    Raises:
        ModelError: it has been imported, with another backend.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        for name in CUTS:
            os.environ.pop(name, None)
    elif hasattr(keras, "config") and keras.config.backend() != "tensorflow":
        raise ModelError(
            f"Keras must compute with TensorFlow, received {keras.config.backend()!r} in this "
            "process; set KERAS_BACKEND=tensorflow before Keras is imported"
        )


def apply_settings() -> None:
    """When Keras is imported, before anything is built."""
    import keras

    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
