"""A metric of one's own: a function of labels and probabilities, named by a person, then checked.

A name alone, as a run folder or a search.yaml holds it, imports nothing. `use_metric` imports, and
it is called for what the person has named: with --metric, or in Python.
"""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawtune.models.errors import ModelError
from pawtune.models.families.own import import_place
from pawtune.models.words import did_you_mean
from pawtune.search.errors import UserError
from pawtune.search.objective import METRICS
from pawtune.search.trial_report import METRICS as REPORTED

MetricFunction = Callable[[NDArray[np.int32], NDArray[np.float32]], float]
PLACE_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}:[A-Za-z_][A-Za-z0-9_]{0,39}")
IN_USE: dict[str, MetricFunction] = {}
_TAKEN = {*REPORTED, "epoch", "objective"}


def use_metric(metric: str | MetricFunction) -> str:
    """Makes a metric known to this process, for as long as it lives.

    Args:
        metric: A function of labels, (n,) int32 class indices, and probabilities, (n, classes)
            float32, that returns a float: the larger the better. Or its place, "module:function",
            which is imported. A module in the current folder is found too, after those that are
            installed.

    Returns:
        Its place, as a configuration records it.

    Raises:
        ModelError: It cannot be imported, or is no function with a name of its own.

    Example:
        >>> use_metric("scores:macro_f1")  # doctest: +SKIP
        'scores:macro_f1'
    """
    found: Any = metric
    if isinstance(metric, str):
        found = import_place(metric, "a metric", "a function", "--metric scores:macro_f1")
    if not callable(found) or isinstance(found, type) or not hasattr(found, "__qualname__"):
        raise ModelError(f"a metric must be a function, received {metric!r:.100}")
    place = metric if isinstance(metric, str) else f"{found.__module__}:{found.__qualname__}"
    try:
        check_place(place)
    except ValueError as error:
        raise ModelError(f"metric: {error}") from None
    IN_USE[place] = found
    return place


def check_place(text: str) -> str:
    """The name of a metric of pawtune's, or the place of one's own; nothing is imported.

    Raises:
        ValueError: It is neither.
    """
    if text in METRICS:
        return text
    if ":" not in text:
        raise ValueError(
            f"must be {', '.join(METRICS)} or module:function, received {text!r:.100}"
            + did_you_mean(text, METRICS)
        )
    if not PLACE_RULE.fullmatch(text):
        raise ValueError(
            f"must name a function at the top of a module, received {text!r:.100}; give for "
            "example scores:macro_f1"
        )
    if metric_name(text) in _TAKEN:
        raise ValueError(
            f"a metric must have a name of its own, received {text!r:.100}; give the function "
            "another name"
        )
    return text


def metric_name(metric: str) -> str:
    """The name under which epochs hold a metric: of one's own, the function's.

    >>> metric_name("scores:macro_f1"), metric_name("val_loss")
    ('macro_f1', 'val_loss')
    """
    return metric.rpartition(":")[2]


def metric_in_use(metric: str) -> MetricFunction | None:
    """The function of a search's metric; None for one of pawtune's.

    Raises:
        UserError: It is one's own, and nobody has named it in this process.
    """
    if metric in METRICS:
        return None
    if metric not in IN_USE:
        raise UserError(
            f"the metric {metric} is code that runs only where you name it; if you trust it, give "
            f"--metric {metric} (in Python: pawtune.use_metric)"
        )
    return IN_USE[metric]


def measure(
    function: MetricFunction, name: str, labels: NDArray[Any], probabilities: NDArray[np.float32]
) -> float:
    """The value of a metric of one's own.

    Args:
        function: The metric; it gets copies.
        name: Its name, for messages.
        labels: (n,) class indices.
        probabilities: (n, classes).

    Raises:
        ModelError: It raises, or returns anything but a finite number.
    """
    try:
        value: Any = function(labels.astype("int32"), probabilities.astype("float32"))
    except Exception as error:  # whatever a person's function may raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ModelError(f"the metric {name} must return a float, but raised {reason}") from error
    number = isinstance(value, int | float | np.floating | np.integer)
    if not number or isinstance(value, bool) or not isfinite(value):
        received = repr(value) if number else f"{value!r:.60} ({type(value).__name__})"
        raise ModelError(f"the metric {name} must return a finite float, received {received}")
    return float(value)


def try_metric(metric: str, labels: NDArray[Any], num_classes: int) -> None:
    """Calls a metric of one's own once, before any trial, with right answers for these labels.

    Raises:
        UserError: It is not in use, raises, or returns anything but a finite number.
    """
    function = metric_in_use(metric)
    if function is None:
        return
    right = np.full((len(labels), num_classes), 0.1 / num_classes, np.float32)
    right[np.arange(len(labels)), labels] += 0.9
    try:
        measure(function, metric_name(metric), labels, right)
    except ModelError as error:
        raise UserError(f"{error}; it was given the validation labels and right answers") from error
