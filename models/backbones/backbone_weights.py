"""Where a backbone's ImageNet weights are: a given file, Keras' cache, or a download.

The search for a local file is plain Python, so that a search can ask before it loads Keras.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from pawtune.models.errors import ModelError
from pawtune.models.words import did_you_mean

WEIGHTS_HOST = ("storage.googleapis.com", 443)

_TF = "weights_tf_dim_ordering_tf_kernels"
# Names under which Keras 3 keeps weights without the top; {size} is the size they were trained
# at. Were a later Keras to rename one, its cached file would no longer be found offline.
_FILES = {
    **{
        f"ConvNeXt{size}": f"convnext_{size.lower()}_notop.h5"
        for size in ("Tiny", "Small", "Base", "Large", "XLarge")
    },
    **{f"DenseNet{depth}": f"densenet{depth}_{_TF}_notop.h5" for depth in (121, 169, 201)},
    **{f"EfficientNetB{number}": f"efficientnetb{number}_notop.h5" for number in range(8)},
    **{
        f"EfficientNetV2{size}": f"efficientnetv2-{size.lower()}_notop.h5"
        for size in ("B0", "B1", "B2", "B3", "S", "M", "L")
    },
    "InceptionResNetV2": f"inception_resnet_v2_{_TF}_notop.h5",
    "InceptionV3": f"inception_v3_{_TF}_notop.h5",
    "MobileNet": "mobilenet_1_0_{size}_tf_no_top.h5",
    "MobileNetV2": f"mobilenet_v2_{_TF}_1.0_{{size}}_no_top.h5",
    "MobileNetV3Large": "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    "MobileNetV3Small": "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    "NASNetLarge": "nasnet_large_no_top.h5",
    "NASNetMobile": "nasnet_mobile_no_top.h5",
    **{f"ResNet{depth}": f"resnet{depth}_{_TF}_notop.h5" for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": f"resnet{depth}v2_{_TF}_notop.h5" for depth in (50, 101, 152)},
    "VGG16": f"vgg16_{_TF}_notop.h5",
    "VGG19": f"vgg19_{_TF}_notop.h5",
    "Xception": f"xception_{_TF}_notop.h5",
}
_TRAINED_AT = {"MobileNet": (128, 160, 192, 224), "MobileNetV2": (96, 128, 160, 192, 224)}

BACKBONES = tuple(sorted(_FILES))


def backbone_name(name: str) -> str:
    """The backbone's name as `keras.applications` spells it; case does not matter.

    Raises:
        ModelError: Keras has no such backbone.
    """
    for known in BACKBONES:
        if known.lower() == name.lower():
            return known
    hint = did_you_mean(name, BACKBONES) or f"; give one of {', '.join(BACKBONES)}"
    raise ModelError(f"a backbone is a model of keras.applications, received {name!r}{hint}")


def weights_file_name(name: str, image_size: int) -> str:
    """Name of Keras' file of ImageNet weights, without the top, for images of this size.

    Raises:
        ModelError: Keras has no such backbone.
    """
    name = backbone_name(name)
    # Keras takes the 224 px weights for sizes that nothing was trained at.
    size = image_size if image_size in _TRAINED_AT.get(name, ()) else 224
    return _FILES[name].format(size=size)


def find_weights(
    name: str, image_size: int, path: Path | None = None, timeout_s: float = 10.0
) -> Path:
    """The file of a backbone's weights: the one given, else Keras' cache, else downloaded.

    Args:
        name: a `keras.applications` model.
        image_size: side of the images in pixels; some backbones have weights for several.
        path: a weights file that a person gave; nothing else is tried then.
        timeout_s: how long to wait for a connection, so that being offline is noticed soon.

    Raises:
        ModelError: an unknown backbone, no file at `path`, or nothing cached and no download.
    """
    if path is not None:
        if not path.is_file():
            raise ModelError(
                f"weights must be a file, and {path} is none: give the path of {name}'s .h5 "
                "weights without the top, or leave it out to use Keras' cache or a download"
            )
        return path.resolve()
    name = backbone_name(name)
    return cached_weights(name, image_size) or _download(name, image_size, timeout_s)


def cached_weights(name: str, image_size: int) -> Path | None:
    """The backbone's file in Keras' cache ($KERAS_HOME or ~/.keras), or None.

    Raises:
        ModelError: Keras has no such backbone.
    """
    file_name = weights_file_name(name, image_size)
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    fallback = Path(tempfile.gettempdir()) / ".keras"  # Keras' choice where home is read-only
    for cache in (home, fallback):
        file = cache / "models" / file_name
        if file.is_file():
            return file
    return None


def _download(name: str, image_size: int, timeout_s: float) -> Path:
    remedy = (
        f"give a file with --weights PATH ({weights_file_name(name, image_size)}, as Keras "
        "publishes it), or search --families conv"
    )
    # Keras' own download tries for minutes where there is no network: ask first.
    try:
        socket.create_connection(WEIGHTS_HOST, timeout=timeout_s).close()
    except OSError as error:
        raise ModelError(
            f"no weights of {name} in Keras' cache, and {WEIGHTS_HOST[0]} cannot be reached "
            f"({error}): {remedy}"
        ) from error
    # In a process of its own that sees no GPU: Keras builds the backbone to download its weights,
    # and TensorFlow would hold the cards of the process that drives a search for its whole time.
    code = (
        "import keras, sys; keras.applications.__dict__[sys.argv[1]](include_top=False, "
        "weights='imagenet', input_shape=(int(sys.argv[2]), int(sys.argv[2]), 3))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", code, name, str(image_size)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["no reason"])[-1]
        raise ModelError(
            f"the weights of {name} could not be downloaded ({reason[:200]}): {remedy}"
        )
    found = cached_weights(name, image_size)
    if found is None:
        raise ModelError(f"Keras keeps the weights of {name} under another name: {remedy}")
    return found


def one_line(error: Exception, limit: int = 200) -> str:
    """The first line of an error's message, cut to `limit` characters; its type where empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
