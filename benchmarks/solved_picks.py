"""Heads picked among many that are solved: from few photographs, and after labels were corrected.

Parts of `out_of_fold.py`, which runs them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from pawtune.models.out_of_fold.calibration import choose_temperature, tempered
from pawtune.models.out_of_fold.label_errors import find_label_errors
from pawtune.models.out_of_fold.leave_out import deal_folds
from pawtune.models.training.solved_heads import (
    Decomposition,
    decompose,
    solve_logistic,
    solve_ridge,
)
from pawtune.search.out_of_fold.predictions import choose_penalty, joined
from pawtune.search.results.ensembles.combination import SIGNIFICANT
from pawtune.search.results.metrics import compare_paired, log_losses, p_of_lower

Features = dict[str, NDArray[np.float16]]
PENALTIES = (0.3, 3.0, 30.0)

TAPS = (("average",), ("maximum",), ("average", "maximum"))
PICKED_FROM = 200


def fold_logistic(
    decomposition: Decomposition,
    labels: NDArray[Any],
    num_classes: int,
    regularisation: float,
    folds: NDArray[Any],
) -> NDArray[np.float64]:
    """(N, C) logits of each image by the logistic head that was solved without its fold.

    All heads share the principal directions and the scale of the features, which are taken from
    all images; labels never are.

    Args:
        decomposition: Decomposition of the N images' features.
        labels: (N,) class indices.
        num_classes: C.
        regularisation: λ of `solve_logistic`.
        folds: (N,) of `deal_folds`.
    """
    logits = np.empty((len(labels), num_classes))
    for fold in np.unique(folds):
        out = folds == fold
        part = without(decomposition, np.flatnonzero(out))
        head = solve_logistic(part, labels[~out], num_classes, regularisation)
        logits[out] = head.val_logits
    return logits


def without(decomposition: Decomposition, rows: NDArray[np.intp]) -> Decomposition:
    """The same directions for the images that remain; `rows` stand as validation images.

    Its variances are those of the remaining images along the directions, which are then no longer
    principal: right for `solve_logistic`, which takes them as step sizes, not for `solve_ridge`.
    """
    rest = np.setdiff1d(np.arange(len(decomposition.weights)), rows)
    kept = decomposition.coordinates[rest]
    weights = decomposition.weights[rest]
    weights = weights * (len(rest) / weights.sum())
    rank = kept.shape[1]
    return replace(
        decomposition,
        mean=np.zeros(rank),
        scale=np.ones(rank),
        coordinates=kept,
        weights=weights,
        variances=weights @ kept.astype(np.float64) ** 2,
        # The coordinates stand for features, along whose own axes these directions lie.
        val_rows=np.sqrt(rank) * decomposition.coordinates[rows],
        directions=np.eye(rank),
        rows=None,
    )


def check_selection(features: Features, labels: NDArray[np.int64], draws: int) -> dict[str, Any]:
    """Hidden regret of the pick among 18 heads from 200 photographs, 140 of them training: by
    validation accuracy, or by that of out-of-fold and validation predictions together; ties go to
    the lower log loss. Regret: how far the accuracy on all other photographs is below the best."""
    classes = int(labels.max()) + 1
    regrets: dict[str, list[float]] = {"validation": [], "out-of-fold too": []}
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        train, rest = order[:140], order[140:]
        seen, given = PICKED_FROM - len(train), labels[train]
        folds = deal_folds(given, np.arange(len(train)))
        scores: dict[str, list[tuple[float, float]]] = {name: [] for name in regrets}
        hidden = []
        for taps in TAPS:
            x = np.concatenate([features[name] for name in taps], axis=1)
            parts = decompose(x[train], x[rest])
            for penalty in PENALTIES:
                ridge = solve_ridge(parts, given, classes, penalty)
                logistic = solve_logistic(parts, given, classes, penalty / 300)
                unseen = fold_logistic(parts, given, classes, penalty / 300, folds)
                for head, out_of_fold in ((ridge, ridge.loo_logits), (logistic, unseen)):
                    own = head.val_logits[:seen]
                    both = np.concatenate([out_of_fold, own])
                    truth = np.concatenate([given, labels[rest[:seen]]])
                    scores["validation"].append(rate(own, labels[rest[:seen]]))
                    scores["out-of-fold too"].append(rate(both, truth))
                    hidden.append(rate(head.val_logits[seen:], labels[rest[seen:]])[0])
        for name, found in scores.items():
            pick = max(range(len(found)), key=found.__getitem__)
            regrets[name].append(100 * (max(hidden) - hidden[pick]))
    difference = np.subtract(*regrets.values())
    return {
        "draws": draws,
        "regret in points": {name: round(float(np.mean(r)), 2) for name, r in regrets.items()},
        "falls by": round(float(difference.mean()), 2),
        "its standard error": round(float(difference.std(ddof=1) / np.sqrt(draws)), 2),
    }


def check_votes(features: Features, labels: NDArray[np.int64], splits: int) -> list[dict[str, Any]]:
    """Test accuracy of a vote of the best 3 among 24 heads beside the best alone, 70% of the
    photographs training and half of the rest validation, under rules for keeping the vote."""
    classes = int(labels.max()) + 1
    gains: dict[str, list[float]] = {"always": [], "log loss": [], "McNemar": []}
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(labels))
        train, rest = np.split(order, [round(0.7 * len(order))])
        half = len(rest) // 2
        given, hidden = labels[rest[:half]], labels[rest[half:]]
        heads = []
        for taps in (*TAPS, tuple(features)):
            x = np.concatenate([features[name] for name in taps], axis=1)
            parts = decompose(x[train], x[rest])
            for penalty in PENALTIES:
                for head in (
                    solve_ridge(parts, labels[train], classes, penalty),
                    solve_logistic(parts, labels[train], classes, penalty / 300),
                ):
                    score = rate(head.val_logits[:half], given)
                    heads.append((score, softmax(head.val_logits, axis=1)))
        best = [p for _, p in sorted(heads, key=lambda pair: pair[0], reverse=True)[:3]]
        vote, alone = np.mean(best, axis=0), best[0]
        losses, losses_alone = (
            log_losses(tempered(p[:half], choose_temperature(p[:half], given)), given)
            for p in (vote, alone)
        )
        right, right_alone = (p[:half].argmax(axis=1) == given for p in (vote, alone))
        gain = np.mean(vote[half:].argmax(1) == hidden) - np.mean(alone[half:].argmax(1) == hidden)
        gains["always"].append(100 * float(gain))
        if p_of_lower(losses, losses_alone) < SIGNIFICANT:
            gains["log loss"].append(100 * float(gain))
        p_value = compare_paired(right, right_alone).p_value
        if right.sum() > right_alone.sum() and p_value < SIGNIFICANT:
            gains["McNemar"].append(100 * float(gain))
    return [
        {
            "kept": rule,
            "of splits": f"{len(found)} of {splits}",
            "points gained where kept": round(float(np.mean(found)), 2) if found else None,
            "standard error": round(float(np.std(found, ddof=1) / np.sqrt(len(found))), 2)
            if len(found) > 1
            else None,
            "points gained by the rule": round(float(np.sum(found)) / splits, 2),
        }
        for rule, found in gains.items()
    ]


def rate(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy, and the log loss below zero."""
    p = softmax(logits, axis=1)
    own = np.maximum(p[np.arange(len(truth)), truth], 1e-12)
    return float((p.argmax(axis=1) == truth).mean()), float(np.log(own).mean())


def check_relabelled(
    features: Features, labels: NDArray[np.int64], shares: Sequence[float], splits: int
) -> list[dict[str, Any]]:
    """Accuracy of the pick among 6 heads with labels as they are, some flipped, and these audited
    and relabelled as the audit suggests.

    80% of the photographs are searched on, an eighth of these for validation, and flipped; the
    rest, with labels as they are, gives the accuracy.
    """
    found: dict[float, list[dict[str, float]]] = {share: [] for share in shares}
    seen = round(0.8 * len(labels))
    train = seen - seen // 8
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(labels))
        clean, x = labels[order[:seen]], joined(features)[order[:seen]]
        audited = decompose(x, x[:1])
        averages = features["average"]
        parts = decompose(averages[order[:train]], averages[order[train:]])
        unseen = labels[order[seen:]]
        best = _pick(parts, clean, train, unseen)
        for share in shares:
            flipped = np.random.default_rng(split + 1).permutation(seen)[: round(share * seen)]
            given = clean.copy()
            given[flipped] = 1 - given[flipped]
            p = softmax(choose_penalty(audited, given, 2)[0], axis=1)
            wrong = find_label_errors(p, given)
            corrected = given.copy()
            corrected[wrong] = 1 - corrected[wrong]
            found[share].append(
                {
                    "clean": best,
                    "flipped": _pick(parts, given, train, unseen),
                    "relabelled": _pick(parts, corrected, train, unseen),
                }
            )
    rows = []
    for share, accuracies in found.items():
        difference = [100 * (each["relabelled"] - each["clean"]) for each in accuracies]
        rows.append(
            {
                "share flipped": share,
                "splits": splits,
                **{
                    name: round(float(np.mean([each[name] for each in accuracies])), 4)
                    for name in accuracies[0]
                },
                "relabelled less clean, in points": round(float(np.mean(difference)), 2),
                "its standard error": round(float(np.std(difference, ddof=1) / splits**0.5), 2),
            }
        )
    return rows


def _pick(
    parts: Decomposition, known: NDArray[np.int64], train: int, unseen: NDArray[np.int64]
) -> float:
    """Accuracy on unseen images of the head that is best on those known after the first `train`."""
    validated = len(known) - train
    tried = []
    for penalty in PENALTIES:
        for head in (
            solve_ridge(parts, known[:train], 2, penalty),
            solve_logistic(parts, known[:train], 2, penalty / 300),
        ):
            score = rate(head.val_logits[:validated], known[train:])
            tried.append((score, rate(head.val_logits[validated:], unseen)[0]))
    return max(tried)[1]
