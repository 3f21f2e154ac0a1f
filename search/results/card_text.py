"""A model card as Markdown, for people; the JSON beside it holds the same and more."""

from collections.abc import Iterable, Mapping
from typing import Any


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card as one Markdown page."""
    test = card["test"]
    parts = [
        f"# Model card: {_plain(card.get('title', card['trial']['name']))}",
        f"{_origin(card)} Takes raw images, (N, H, W, 3) uint8 of any size; gives a "
        f"probability for each of {len(card['class_names'])} classes: "
        f"{', '.join(_plain(name) for name in card['class_names'])}.",
        "## Accuracy",
        _table(("split", "accuracy", "95% interval", "images"), _accuracies(card)),
        _remark(test),
        "## Data",
        f"Fingerprint of contents, labels and splits: `{card['data_fingerprint']}`",
        _counts(card["counts"]),
        "## Model and training",
        _table(("setting", "value"), _settings(card["spec"])),
        "## Made with",
        _table(("what", "value"), _made_with(card)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(card: Mapping[str, Any]) -> str:
    """What the model is and how it came about."""
    trial, record, kind = card["trial"], card.get("record", {}), card.get("model", "trial")
    if kind == "refit":
        return (
            f"Trial {trial['trial_id']} of the search `{card['run']}`, trained anew on its "
            f"{record['train_images']} training and {record['validation_images']} validation "
            f"images together for {record['epochs']} epochs, the number that was best on "
            "validation. No validation images were left to choose an epoch or to score it on: "
            "its own accuracy is known from the test split alone."
        )
    if kind == "ensemble":
        members = "; ".join(
            f"{member['trial_id']} {_plain(member['name'])} (epoch {member['epoch']}, validation "
            f"accuracy {member['accuracy']:.4f})"
            for member in record["members"]
        )
        return (
            f"From the search `{card['run']}`: the mean of the probabilities of "
            f"{len(record['members'])} trials: {members}."
        )
    return (
        f"From the search `{card['run']}`, trial {trial['trial_id']}, epoch "
        f"{trial['best_epoch']} of {trial['epochs']}."
    )


def _accuracies(card: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    validation, test = card["validation"], card["test"]
    images = str(validation["images"])
    seen = {
        "refit": "validation, of the trial before it was refit",
        "ensemble": "validation, as seen; its members were picked on these images",
    }
    yield (
        seen.get(card.get("model", "trial"), "validation, as seen"),
        f"{validation['accuracy']:.4f}",
        _interval(validation["interval_95"]),
        images,
    )
    if validation["corrected_accuracy"] is not None:
        yield (
            f"validation, corrected for picking the best of {validation['candidates']}",
            f"{validation['corrected_accuracy']:.4f}",
            _interval(validation["corrected_interval_95"]),
            images,
        )
    if test is not None:
        interval = _interval(test["interval_95"])
        yield (f"test, look {test['looks']}", f"{test['accuracy']:.4f}", interval, str(test["n"]))


def _remark(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "The test split had not been looked at with this model when the card was written."
    if test["looks_of_run"] > 1:
        return (
            f"This search has looked at the test split {test['looks_of_run']} times: a figure "
            "chosen after several looks is no longer an honest test."
        )
    return "The test split was looked at once."


def _counts(counts: Mapping[str, Mapping[str, int]]) -> str:
    labels = list(next(iter(counts.values()), {}))
    rows = [(split, *(str(counts[split][label]) for label in labels)) for split in counts]
    return _table(("split", *(_plain(label) for label in labels)), rows)


def _settings(spec: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for part in ("model", "train"):
        yield from ((f"{part}.{key}", _plain(value)) for key, value in spec[part].items())
    for number, member in enumerate(spec.get("members", ()), start=1):
        for part in ("model", "train"):
            values = (f"{key} {_plain(value)}" for key, value in member[part].items())
            yield f"member {number}, {part}", ", ".join(values)


def _made_with(card: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield from ((key, _plain(value)) for key, value in card["hardware"].items() if value)
    for title, key in (("searched with", "search_versions"), ("written with", "versions")):
        if card[key]:
            yield title, ", ".join(f"{name} {_plain(v)}" for name, v in card[key].items())
    yield "this file", f"`{card['command']}`"
    yield "the search again", f"`{card['search_command']}`"


def _interval(interval: Iterable[float] | None) -> str:
    return "–" if interval is None else " to ".join(f"{edge:.4f}" for edge in interval)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: object) -> str:
    """A value on one line that Markdown leaves as it is."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
