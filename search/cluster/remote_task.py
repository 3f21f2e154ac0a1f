"""Ray tasks whose resources are known only at run time, and which give a GPU's memory back."""

from collections.abc import Callable
from typing import Any

import ray


def remote_task(
    function: Callable[..., Any], *, num_cpus: float, num_gpus: float, **options: Any
) -> Any:
    """A function as a Ray task; with a GPU, each call has a process that ends after it.

    TensorFlow keeps the memory that it has taken of a GPU for as long as the process lives, and
    Ray keeps idle processes for other work. Ray (2.60) ends them where `num_gpus` was given to
    `ray.remote` itself, not where it comes by `.options()`.

    Args:
        function: a function at the top level of a module.
        num_cpus: CPUs that a call reserves.
        num_gpus: GPUs that a call reserves, or a part of one.
        options: other options of `ray.remote`.
    """
    return ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, **options)(function)
