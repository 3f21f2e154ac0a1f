"""The one file that uses private parts of Ray and Tune: what of their behaviour is mended, and why.

Asked of Ray, which has no public way:

- `check_token`: `ray.init` asks a head that refuses its token again for 20 s; one call tells.
- `address_of_auto`: `ray.init(address="auto")` asks a head that is gone for minutes. With its
  address, whether anything answers there can be tried first.
- `local_resources`: what a local cluster would have, for `--dry-run`, which starts none.
- `session_folder`: where a worker that cannot start leaves its error.
- `node_groups`: what an autoscaler may add. Without it a cluster that starts with no GPU node is
  taken for one that will never have any.
- `take_messages`: Ray prints events of its nodes on stdout, where `--json` must stand alone.
- `is_draining`: which nodes are about to go, as spot machines do.

Left out of a Ray that is started for one search (`lean_node`):

- Its monitor, which adds and removes the nodes of an autoscaler, its dashboard's server, which
  `include_dashboard=False` still starts, and the process that sends workers' output to a driver
  that has asked for none. With them a search starts 1 to 2 s later, and Ray's end waits one more
  second for a monitor that takes no signal.

Mended in Tune, while a search runs (`tune_adapted`):

- `TolerantActors`: an error of Ray's that Tune does not know (a worker that the memory monitor
  kills) ends the whole experiment. Without the patch one such worker ends a search.
- `WarmWorkers`: Tune ends idle and half-started workers that the next trial could have, and hands
  trials to workers on nodes that are about to go. Without it a search of short trials starts a
  process for each of many trials, and a trial may be given up as its worker dies.
- Credentials: Tune copies AWS_SECRET_ACCESS_KEY and its like from the driver's environment into
  the command line of each worker, which everybody on its machine can read. Without the patch they
  show in `ps`; workers have the environment of the node that they run on.
- Settings: snapshots and tables that nothing reads are switched off.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray

from pawtune.search.errors import UserError

FITS = "2.60"  # what follows builds on much that Ray and Tune keep to themselves
if not ray.__version__.startswith(f"{FITS}."):
    raise UserError(
        f"Ray must be {FITS}, whose Tune pawtune adapts, received {ray.__version__}: "
        f"pip install 'ray[default,tune]=={FITS}.*'"
    )

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # ours write what is needed
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the search without losing its reason
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # snapshots that nothing reads
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints tables even at verbose=0
}
ENOUGH = 100_000  # more idle workers than a cluster has
Base: Any = object  # of a mixin: Tune, whose import takes two seconds, stands behind it


def session_folder() -> Path:
    """Session folder of the cluster that this process joined; Ray's logs are in its `logs`."""
    return Path(ray._private.worker.global_worker.node.get_session_dir_path())


@contextmanager
def lean_node() -> Iterator[None]:
    """For the time of a block, a Ray that starts has the processes that a search needs."""
    from ray._private.node import Node

    names = ("start_monitor", "start_api_server", "start_log_monitor")
    kept = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda node, **_: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def local_resources() -> tuple[float, float]:
    """CPUs and GPUs that a Ray started here would find."""
    manager = ray._private.accelerators.get_accelerator_manager_for_resource("GPU")
    gpus = manager.get_current_node_num_accelerators()
    visible = manager.get_current_process_visible_accelerator_ids()
    return (
        float(ray._private.utils.get_num_cpus()),
        float(gpus if visible is None else min(gpus, len(visible))),
    )


def check_token(address: str) -> None:
    """Asks a head once whether it lets us in.

    Raises:
        AuthenticationError: Ray's; it does not.
    """
    ray._raylet.GcsClient(address=address)


def address_of_auto() -> str | None:
    """host:port of the head that `auto` means; None where RAY_ADDRESS says `local`.

    Raises:
        ConnectionError: There is none.
    """
    found: str | None = ray._private.services.canonicalize_bootstrap_address("auto")
    return found


def node_groups() -> Sequence[Any]:
    """The groups of nodes, with resources and max_count, that an autoscaler has reported to Ray."""
    config = ray._private.state.state.get_cluster_config()
    return config.node_group_configs if config is not None else ()


def take_messages(take: Callable[[Sequence[str]], None]) -> None:
    """Has the lines that Ray would print given to a function, in a thread of Ray's."""
    ray._private.worker.print_to_stdstream = partial(_hand_on, take)


def _hand_on(
    take: Callable[[Sequence[str]], None], data: dict[str, Any], ignore_prefix: bool = False
) -> None:
    take(data["lines"])


def is_draining(actor: Any) -> bool:
    """Whether the node that an actor runs on is about to go."""
    drained = ray._private.state.state.get_draining_nodes()
    if not drained:
        return False
    facts = ray._private.state.actors(actor._actor_id.hex())
    return facts.get("Address", {}).get("NodeID") in drained


class TolerantActors(Base):  # type: ignore[misc]  # Ray is untyped
    """Tune's RayActorManager, for all ways in which Ray says that a worker is gone.

    Where a node runs out of memory, Ray's monitor kills workers with an error that is neither an
    actor's nor a task's; Tune ends the search on it.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        known = (ray.exceptions.RayActorError, ray.exceptions.RayTaskError)
        if not isinstance(exception, known):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


class WarmWorkers(Base):  # type: ignore[misc]
    """Tune's TuneController; a worker lives for as long as there is anything left to propose.

    Tune gives a worker whose trial has ended the next trial that waits, and ends the half-started
    worker that this one was to have. It also ends all but one of the workers whose trials end at
    the same moment. Where trials end sooner than workers start, few of many ever do. And a trial
    that a worker is handed as it dies, Tune first queues again and then gives up.
    """

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        starting = own is not None and self._actor_manager.is_actor_started(own)
        if starting and not self._search_alg.is_finished():
            return False  # the idle worker is for the trial that will be proposed next
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _maybe_cache_trial_actor(self, trial: Any) -> bool:
        if self._is_leaving(self._trial_to_actor.get(trial)):
            return False  # where a new worker starts, Ray asks which nodes stay
        self._actor_cache.increase_max(trial.placement_group_factory, ENOUGH)
        return bool(super()._maybe_cache_trial_actor(trial))

    def _is_leaving(self, worker: Any) -> bool:
        if worker is None or not self._actor_manager.is_actor_started(worker):
            return False
        return is_draining(self._actor_manager._live_actors_to_ray_actors_resources[worker][0])

    def _actor_failed(self, tracked_actor: Any, exception: Exception) -> None:
        # A worker that dies while it is handed a trial: Tune would take it as still at that.
        self._resetting_trials.discard(self._actor_to_trial.get(tracked_actor))
        super()._actor_failed(tracked_actor, exception)

    def _process_trial_failure(self, trial: Any, exception: Exception) -> None:
        if trial.status == trial.PENDING and isinstance(exception, ray.exceptions.RayActorError):
            return  # reported again, for the task: for the worker, the trial was queued again
        super()._process_trial_failure(trial, exception)

    def _cleanup_cached_actors(self, force_all: bool = False) -> None:
        # Nothing more will be proposed, nothing waits: others may have the room.
        over = self._search_alg.is_finished() and not self._staged_trials
        super()._cleanup_cached_actors(force_all=force_all or over)


@contextmanager
def tune_adapted() -> Iterator[None]:
    """For the time of a block Tune, its settings and its log are as a search needs them.

    What other code of the same process does with Tune before and afterwards is not touched.
    """
    import ray.tune.tune
    from ray.tune.execution import class_cache, tune_controller

    environment = {name: os.environ.get(name) for name in ENVIRONMENT}
    log = logging.getLogger("ray.tune")
    manager, controller = tune_controller.RayActorManager, ray.tune.tune.TuneController
    credentials, level = class_cache.ENV_VARS_TO_PROPAGATE, log.level
    os.environ.update(ENVIRONMENT)
    tune_controller.RayActorManager = type("RayActorManager", (TolerantActors, manager), {})
    ray.tune.tune.TuneController = type("TuneController", (WarmWorkers, controller), {})
    class_cache.ENV_VARS_TO_PROPAGATE = {x for x in credentials if not x.startswith("AWS_")}
    log.setLevel(logging.CRITICAL)  # what fails is in the records
    try:
        yield
    finally:
        tune_controller.RayActorManager = manager
        ray.tune.tune.TuneController = controller
        class_cache.ENV_VARS_TO_PROPAGATE = credentials
        log.setLevel(level)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
