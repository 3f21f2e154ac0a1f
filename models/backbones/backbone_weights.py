"""Where a backbone's ImageNet weights are: a given file, Keras' cache, or a download.

The search for a local file is plain Python, so that a search can ask before it loads Keras.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

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

# Of each: the numbers in such a file, as `count_params` of Keras' model without its top has them,
# and the features of an image, the channels of the last layer without the top.
_SIZES = {
    "ConvNeXtBase": (87_566_464, 1024),
    "ConvNeXtLarge": (196_230_336, 1536),
    "ConvNeXtSmall": (49_454_688, 768),
    "ConvNeXtTiny": (27_820_128, 768),
    "ConvNeXtXLarge": (348_147_968, 2048),
    "DenseNet121": (7_037_504, 1024),
    "DenseNet169": (12_642_880, 1664),
    "DenseNet201": (18_321_984, 1920),
    "EfficientNetB0": (4_049_571, 1280),
    "EfficientNetB1": (6_575_239, 1280),
    "EfficientNetB2": (7_768_569, 1408),
    "EfficientNetB3": (10_783_535, 1536),
    "EfficientNetB4": (17_673_823, 1792),
    "EfficientNetB5": (28_513_527, 2048),
    "EfficientNetB6": (40_960_143, 2304),
    "EfficientNetB7": (64_097_687, 2560),
    "EfficientNetV2B0": (5_919_312, 1280),
    "EfficientNetV2B1": (6_931_124, 1280),
    "EfficientNetV2B2": (8_769_374, 1408),
    "EfficientNetV2B3": (12_930_622, 1536),
    "EfficientNetV2L": (117_746_848, 1280),
    "EfficientNetV2M": (53_150_388, 1280),
    "EfficientNetV2S": (20_331_360, 1280),
    "InceptionResNetV2": (54_336_736, 1536),
    "InceptionV3": (21_802_784, 2048),
    "MobileNet": (3_228_864, 1024),
    "MobileNetV2": (2_257_984, 1280),
    "MobileNetV3Large": (2_996_352, 960),
    "MobileNetV3Small": (939_120, 576),
    "NASNetLarge": (84_916_818, 4032),
    "NASNetMobile": (4_269_716, 1056),
    "ResNet101": (42_658_176, 2048),
    "ResNet101V2": (42_626_560, 2048),
    "ResNet152": (58_370_944, 2048),
    "ResNet152V2": (58_331_648, 2048),
    "ResNet50": (23_587_712, 2048),
    "ResNet50V2": (23_564_800, 2048),
    "VGG16": (14_714_688, 512),
    "VGG19": (20_024_384, 512),
    "Xception": (20_861_480, 2048),
}
NUM_WEIGHTS = {name: weights for name, (weights, _) in _SIZES.items()}
NUM_FEATURES = {name: features for name, (_, features) in _SIZES.items()}

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


BackboneName = Annotated[
    str,
    AfterValidator(backbone_name),
    Field(description="the name of a keras.applications model"),
]


def weights_by_backbone(given: str | None) -> dict[str, str]:
    """The places of weights that a person gave, by backbone.

    Args:
        given: "NAME=PATH,NAME=PATH"; a path alone is that of the only backbone, under "".

    Raises:
        ModelError: an unknown backbone, one that is named twice, or one without a path.

    >>> weights_by_backbone("mobilenetv2=a.h5,VGG16=b.h5")
    {'MobileNetV2': 'a.h5', 'VGG16': 'b.h5'}
    """
    if not given or not re.match(r"\s*\w+\s*=", given):
        return {"": given} if given else {}
    places: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", given):
        word, _, place = (text.strip() for text in part.partition("="))
        name = backbone_name(word)
        if not place or name in places:
            raise ModelError(
                f"each backbone has one weights file, received {part.strip()!r}"
                f"{' after another for it' if name in places else ''}; give {name}=PATH once"
            )
        places[name] = place
    return places


def map_weights(given: str, change: Callable[[str], str]) -> str:
    """The same text with each place of `weights_by_backbone` changed."""
    places = weights_by_backbone(given)
    return ",".join(f"{name}={change(p)}" if name else change(p) for name, p in places.items())


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
        ModelError: an unknown backbone, a file at `path` or in the cache that is not its weights,
            or nothing cached and no download.
    """
    name = backbone_name(name)
    if path is not None:
        if not path.is_file():
            raise ModelError(
                f"weights must be a file, and {path} is none: give the path of {name}'s .h5 "
                "weights without the top, or leave it out to use Keras' cache or a download"
            )
        _check(name, path)
        return path.resolve()
    found = cached_weights(name, image_size) or _download(name, image_size, timeout_s)
    _check(name, found)
    return found


def _check(name: str, file: Path) -> None:
    """Refuses a file that cannot hold a backbone's weights, without Keras, in milliseconds.

    Keras loads a file only where every shape is the backbone's, and so the number of weights too.
    """
    try:
        received = _count_weights(file)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        found = f"it cannot be read as HDF5 ({one_line(error)})"
    else:
        if received == NUM_WEIGHTS[name]:
            return
        others = [other for other, number in NUM_WEIGHTS.items() if number == received]
        found = f"it has {received:,} weights, not {NUM_WEIGHTS[name]:,}"
        if others:
            found += f": they are {others[0]}'s"
    raise ModelError(
        f"weights must be those of {name} without the top, received {file}: {found}; give the "
        f".h5 file that Keras publishes for {name}, or leave it out; delete a damaged one in "
        "Keras' cache"
    )


def _count_weights(file: Path) -> int:
    """How many numbers an .h5 file of Keras holds for its layers, from its table of contents."""
    import h5py

    total = 0

    def add(name: str, node: object) -> None:
        nonlocal total
        if isinstance(node, h5py.Dataset) and "seed_generator" not in name:
            total += node.size or 0

    with h5py.File(file) as content:
        for key, node in content.items():
            if isinstance(node, h5py.Dataset):
                add(key, node)
            elif key not in ("optimizer", "optimizer_weights"):
                node.visititems(add)
    return total


def weights_ending(file: Path) -> str:
    """The ending by which Keras tells its formats apart, whatever the file is called.

    Returns:
        `.weights.h5` for what `save_weights` writes, `.h5` for older files, as Keras publishes.
    """
    import h5py

    with h5py.File(file) as content:
        published = "layer_names" in content.attrs or "model_weights" in content
    return ".h5" if published else ".weights.h5"


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
