"""The head of a model card as the Hugging Face Hub reads it: YAML before the page.

https://huggingface.co/docs/hub/model-cards
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

# Of the ImageNet weights, as Keras documented them, backbone by backbone:
# https://github.com/keras-team/keras/blob/2.2.0/docs/templates/applications.md
# Nothing is said of later ones (EfficientNet, MobileNetV3, ConvNeXt): theirs is "unknown". A net
# that was trained from scratch holds nobody else's weights: its licence is for its owner to choose.
LICENSES = {
    **dict.fromkeys(("MobileNet", "MobileNetV2", "InceptionV3", "InceptionResNetV2"), "apache-2.0"),
    **dict.fromkeys(("NASNetMobile", "NASNetLarge"), "apache-2.0"),
    **dict.fromkeys(("VGG16", "VGG19"), "cc-by-4.0"),
    **dict.fromkeys(("ResNet50", "Xception"), "mit"),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), "bsd-3-clause"),
}


def front_matter(card: Mapping[str, Any]) -> str:
    """The lines between `---`, those included.

    Args:
        card: Model card, from `make_card`.
    """
    title = str(card.get("title", card["trial"]["name"]))
    head: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "pawtune"],
        "model-index": [{"name": title, "results": [_result(card)]}],
    }
    licenses = sorted({license_of(name) for name in backbones(card)})
    if licenses:
        head["license"] = licenses[0] if len(licenses) == 1 else "other"
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"


def license_of(backbone: str) -> str:
    """The licence of a backbone's weights, as the Hub writes it.

    >>> license_of("MobileNetV2"), license_of("MobileNetV3Small")
    ('apache-2.0', 'unknown')
    """
    return LICENSES.get(backbone, "unknown")


def backbones(card: Mapping[str, Any]) -> Iterator[str]:
    """Those whose weights the model holds; of an ensemble, all members'."""
    spec = card["spec"]
    for part in (spec, *spec.get("members", ())):
        if backbone := part["model"].get("backbone"):
            yield str(backbone)


def _result(card: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy on the test split; before anybody has looked, on validation."""
    test, validation = card["test"], card["validation"]
    if test is not None:
        split, value, interval, images = "test", test["accuracy"], test["interval_95"], test["n"]
    elif validation["corrected_accuracy"] is not None:
        split, images = "validation", validation["images"]
        value, interval = validation["corrected_accuracy"], validation["corrected_interval_95"]
    else:
        split, images = "validation", validation["images"]
        value, interval = validation["accuracy"], validation["interval_95"]
    metric: dict[str, Any] = {"type": "accuracy", "value": round(float(value), 6)}
    metric["name"] = f"Accuracy on {images} images"
    if interval is not None:
        metric["name"] += f", 95% interval {interval[0]:.4f} to {interval[1]:.4f}"
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", str(card["run"])) or "data"
    dataset = {"type": slug, "name": f"data of the search {card['run']}", "split": split}
    return {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": [metric]}
