"""Searches as jobs of a Ray cluster: submitted, listed, followed, stopped by Ray's jobs API.

What is shipped is the code that runs here and the search's whole configuration, nothing else: the
package alone, never the folder around it, where data and runs lie. Options travel in a
file and not in the job's command, which every user of the cluster's machines can read.
"""

import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pawtune
from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.sources.object_store import is_address, join
from pawtune.data_pipeline.sources.resolve import NAMES, is_path
from pawtune.data_pipeline.url_credentials import without_secrets
from pawtune.models.backbones.backbone_weights import map_weights
from pawtune.models.families.own import code_of
from pawtune.models.families.table import OWN
from pawtune.search.config.needs import check_seen_weights
from pawtune.search.config.own_metric import IN_USE
from pawtune.search.config.search_config import SearchConfig, default_name, dump_config
from pawtune.search.errors import UserError
from pawtune.search.jobs.api import JobsApi
from pawtune.search.run import open_run
from pawtune.search.storage.run_lock import refuse_if_held

CONFIG_FILE = "submitted.yaml"
LABELS_FILE = "labels.csv"
RELABEL_FILE = "relabel.csv"
# Ray stops a job by SIGTERM and kills it 3 s later; pawtune ends in order on SIGINT.
STOP_WAIT_S = 20
ENVIRONMENT = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
AUTOSCALING = (
    "PAWTUNE_AUTOSCALING"  # as pawtune.search.cluster.autoscaler reads it, which imports Ray
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Job:
    """A search on a cluster.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        run: The run's name; `folder`: its folder, on the cluster.
        started, ended: Seconds since 1970.
        message: Ray's own words about the status.
    """

    job_id: str
    status: str
    run: str
    folder: str
    started: float | None
    ended: float | None
    message: str


def submit(api: JobsApi, config: SearchConfig, *, shared: bool, quiet: bool) -> Job:
    """Starts a search as a job.

    Args:
        api: The cluster.
        config: The search; paths as given on this machine.
        shared: Its paths are those of a file system that the cluster has as well.
        quiet: Show nothing but warnings, as `pawtune run --quiet`.

    Raises:
        UserError: A path that the cluster cannot see, or a name in use.
        ModelError: A weights file that cannot be that of its backbone.
    """
    here = shared or api.is_on_this_machine()
    name = config.name or default_name(config)
    config = placed(config, here, shared).model_copy(
        update={
            "name": name,
            "resources": config.resources.model_copy(update={"address": "auto"}),
        }
    )
    check_seen_weights(config)
    in_store = is_address(config.runs_dir)
    folder = join(config.runs_dir, name) if in_store else f"{config.runs_dir.rstrip('/')}/{name}"
    if driver := _driver(folder, jobs(api)):  # which makes the folder seconds after it began
        raise UserError(
            f"--name must be new, received {name!r}, which job {driver.job_id} searches under "
            f"{config.runs_dir}; nothing was submitted: choose another name"
        )
    if here and Path(folder).exists():
        raise UserError(
            f"--name must be new, received {name!r}, which exists in {config.runs_dir}; nothing "
            "was submitted: choose another name, or delete that run first"
        )
    command = ["run", "--config", CONFIG_FILE, *["--quiet"] * quiet]
    return _start(api, folder, command, config)


def resume(
    api: JobsApi,
    name: str,
    *,
    more_trials: int = 0,
    retry_failed: bool = False,
    data: str | None = None,
    quiet: bool = False,
    runs_dir: str = "runs",
) -> Job:
    """Continues with a search as another job.

    Args:
        api: The cluster.
        name: A job of it, the name of such a job's run, or the folder of a run there.
        more_trials: Proposed trials on top of those the search was given before.
        retry_failed: Run failed trials again.
        data: Place of the images, if they have moved.
        quiet: Show nothing but warnings, as `pawtune run --quiet`.
        runs_dir: Folder of a run of that name, if no job of the cluster has it.

    Raises:
        UserError: No such run, it is being driven, or a path that the cluster cannot see.
    """
    known = jobs(api)
    here = api.is_on_this_machine()
    folder = _folder_of(api, name, known, here, runs_dir)
    if driver := _driver(folder, known):
        raise UserError(
            f"a run has one driver at a time, and {name} is held by job {driver.job_id}; wait for "
            f"it, or `pawtune stop {driver.job_id} --address {api.shown}` first"
        )
    if here and not is_address(folder):
        if not Path(folder).exists():
            raise UserError(
                f"a run continues from its folder, received {name!r}, whose folder {folder} is not "
                "there; bring it back and give its path, or search again with `pawtune submit`"
            )
        refuse_if_held(open_run(folder).folder)
    command = ["resume", folder, *["--quiet"] * quiet, *["--retry-failed"] * retry_failed]
    if more_trials:
        command += ["--trials", f"+{more_trials}"]
    if data is not None:
        if without_secrets(data) != data:
            raise UserError(
                "--data must hold no password where a job's command shows it, received "
                f"{without_secrets(data)!r}; copy the images to where the cluster sees them"
            )
        if is_path(data):
            data = _placed_path(data, "--data", "", here, shared=False)
        command += ["--data", data]
    return _start(api, folder, command)


def _folder_of(api: JobsApi, name: str, known: Sequence[Job], here: bool, runs_dir: str) -> str:
    if is_address(name):
        return name
    for job in known:
        if name == job.job_id:
            return job.folder
    path, below = expanded(name), expanded(runs_dir) / name
    if is_address(runs_dir) and len(path.parts) == 1:
        return join(runs_dir, name)
    if below.exists() if here else below.is_absolute() and not path.is_absolute():
        return str(below.resolve() if here else below)
    if job_of_run := _of_run(name, known):
        return job_of_run.folder
    if here and path.exists():
        return str(path.resolve())
    if path.is_absolute() and not here:
        return str(path)  # of the cluster; the job looks there
    listed = ", ".join(job.job_id for job in known[:10]) or "none"
    raise UserError(
        f"RUN must be a job of the cluster at {api.shown}, the name of its run, or the full path "
        f"of a run folder there, received {name!r}; its jobs: {listed}"
    )


def _start(
    api: JobsApi, folder: str, command: Sequence[str], config: SearchConfig | None = None
) -> Job:
    """Submits a command of pawtune that drives a run."""
    name = folder.split("?")[0].rstrip("/").rpartition("/")[2]
    job_id = f"{name}-{secrets.token_hex(3)}"
    own = [own.place for own in OWN.values()]
    named = [word for place in own for word in ("--family", place)]
    named += [word for place in IN_USE for word in ("--metric", place)]
    words = ["python", "-m", "pawtune", *command, *named, "--address", "auto"]
    with tempfile.TemporaryDirectory(prefix="pawtune-submit-") as package:
        pack(Path(package), config, [*own, *IN_USE])
        api.ask(
            "submit_job",
            # exec: the signal to stop reaches Python, with no shell in between to be asked first.
            entrypoint="exec " + shlex.join(words),
            submission_id=job_id,
            runtime_env={"working_dir": package, "env_vars": {**ENVIRONMENT, **_declared()}},
            metadata={"pawtune": distribution("pawtune").version, "run": name, "folder": folder},
        )
    return find(api, job_id)


def _declared() -> dict[str, str]:
    """What is declared here of nodes to come; a job has the environment of its cluster."""
    declared = os.environ.get(AUTOSCALING)
    return {AUTOSCALING: declared} if declared else {}


def placed(config: SearchConfig, here: bool, shared: bool) -> SearchConfig:
    """The configuration with paths that hold on the cluster.

    Args:
        config: The search; paths as given on this machine.
        here: The cluster sees this machine's paths.
        shared: Because the person says so: then a path may also be missing here.

    Raises:
        UserError: A path that only this machine has.
    """
    update: dict[str, Any] = {}
    if is_path(config.data):
        names = f"a name ({', '.join(NAMES)}), a URL or "
        update["data"] = _placed_path(config.data, "--data", names, here, shared)
    if config.weights:
        update["weights"] = map_weights(
            config.weights,
            lambda place: (
                place if is_address(place) else _placed_path(place, "--weights", "", here, shared)
            ),
        )
    if is_address(config.runs_dir):
        return config.model_copy(update=update)
    update["learn_from"] = tuple(
        _placed_run(run, config.runs_dir, here, shared) for run in config.learn_from
    )
    runs = expanded(config.runs_dir)
    if not here and not runs.is_absolute():
        raise UserError(
            "--runs-dir must be the full path of a folder on the cluster's head, "
            f"received {config.runs_dir!r}; give for example --runs-dir /shared/runs, or "
            "s3://BUCKET/runs"
        )
    update["runs_dir"] = str(runs.resolve() if here else runs)
    return config.model_copy(update=update)


def _placed_path(given: str, option: str, others: str, here: bool, shared: bool) -> str:
    path = expanded(given)
    if here:
        if not path.exists() and not shared:
            raise UserError(f"{option} must be {others}a path that exists, received {given!r}")
        return str(path.resolve())
    if path.is_absolute() and not path.exists():
        return str(path)  # a path of the cluster; the search looks there before its first trial
    raise UserError(
        f"{option} must be {others}a path that the cluster sees, received {given!r}, a path of "
        "this machine; copy it to the cluster's shared folder and give its full path there, or add "
        "--shared-path if it is the same on both"
    )


def _placed_run(given: str, runs_dir: str, here: bool, shared: bool) -> str:
    """An earlier run to learn from: by its name in `--runs-dir`, which the job has too, or path."""
    below = expanded(runs_dir) / given
    if is_address(given) or os.sep not in given and (not here or below.exists()):
        return given
    return _placed_path(given, "--learn-from", "the name of a run or ", here, shared)


def pack(folder: Path, config: SearchConfig | None, own_code: Sequence[str] = ()) -> None:
    """Writes what a job needs into an empty folder: the running code, its name card, the search.

    A run that continues has its configuration already. The code of families and of a metric of
    one's own, which the person has named, goes along.
    """
    for place in own_code:
        source = code_of(place)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / source.name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, folder / source.name)
    # Links in the package, as an editable install has them, become real files in the copy.
    code = Path(pawtune.__file__).parent
    shutil.copytree(code, folder / "pawtune", ignore=shutil.ignore_patterns("__pycache__"))
    ours = distribution("pawtune")
    card = folder / f"pawtune-{ours.version}.dist-info"  # a run records pawtune's version
    card.mkdir()
    (card / "METADATA").write_text(f"Name: pawtune\nVersion: {ours.version}\n", encoding="utf-8")
    if config is not None:
        if config.labels is not None and expanded(config.labels).is_file():
            shutil.copyfile(expanded(config.labels), folder / LABELS_FILE)
            config = config.model_copy(update={"labels": LABELS_FILE})
        if config.relabel is not None:
            shutil.copyfile(expanded(config.relabel), folder / RELABEL_FILE)
            config = config.model_copy(update={"relabel": RELABEL_FILE})
        written = dump_config(config, with_secrets=True)
        (folder / CONFIG_FILE).write_text(written, encoding="utf-8")


def find(api: JobsApi, job_id: str) -> Job:
    """One job, by its id or the name of its run.

    Raises:
        UserError: The cluster has no such job, or runs of that name in several folders.
    """
    try:
        return _job(api.ask("get_job_info", job_id))
    except UserError as error:
        if "status code 404" not in str(error):
            raise
    known = jobs(api)
    if job := _of_run(job_id, known):
        return job
    listed = ", ".join(job.job_id for job in known[:10]) or "none"
    raise UserError(
        f"JOB must be a job of the cluster at {api.shown}, or the name of its run, received "
        f"{job_id!r}; its jobs: {listed}"
    )


def _of_run(name: str, known: Sequence[Job]) -> Job | None:
    """The job that drives a run, else the one that did last.

    Raises:
        UserError: Runs in several folders have that name: one may be somebody else's.
    """
    found = [job for job in known if job.run == name]
    if len({job.folder for job in found}) > 1:
        text = ", ".join(f"{job.job_id} ({job.folder})" for job in found[:10])
        raise UserError(
            f"a run's name must be that of one run of the cluster, received {name!r}; give one of "
            f"its jobs: {text}"
        )
    driving = [job for job in found if job.status not in ENDED]
    return next(iter(driving + found), None)


def _driver(folder: str, known: Sequence[Job]) -> Job | None:
    """The job that drives the run of a folder now."""
    return next((job for job in known if job.folder == folder and job.status not in ENDED), None)


def jobs(api: JobsApi) -> list[Job]:
    """The searches among the cluster's jobs, the newest first."""
    found = [_job(job) for job in api.ask("list_jobs") if "pawtune" in (job.metadata or {})]
    return sorted(found, key=lambda job: job.started or time.time(), reverse=True)


def logs(api: JobsApi, job_id: str) -> str:
    """All that a job has printed so far."""
    return str(api.ask("get_job_logs", find(api, job_id).job_id))


def follow(api: JobsApi, job_id: str, show: Callable[[str], None]) -> None:
    """Shows what a job prints, piece by piece, until it ends.

    Raises:
        KeyboardInterrupt: On SIGINT, between two pieces.
        BrokenPipeError: Of `show`: who read has gone, as after `| head`.
    """
    import asyncio

    job = find(api, job_id)

    async def pass_on() -> BrokenPipeError | None:
        async with aclosing(api.client.tail_job_logs(job.job_id)) as pieces:
            async for piece in pieces:
                try:
                    show(piece)
                except BrokenPipeError as gone:
                    return gone
        return None

    with api.explained():
        gone = asyncio.run(pass_on())
    if gone is not None:  # out here, where it is no fault of the cluster's
        raise gone


def stop(api: JobsApi, job_id: str) -> Job:
    """Ends a job in order, and waits until it has ended; one that has ended stays as it is.

    Raises:
        UserError: No such job, or it does not end.
    """
    job = find(api, job_id)
    if job.status in ENDED:
        return job
    api.ask("stop_job", job.job_id)
    deadline = time.monotonic() + STOP_WAIT_S + 10  # after its time Ray kills it
    while time.monotonic() < deadline:
        job = find(api, job.job_id)
        if job.status in ENDED:
            return job
        time.sleep(0.5)
    raise UserError(
        f"job {job.job_id} has not ended {STOP_WAIT_S + 10} s after it was asked to; "
        f"ask again: pawtune status {job.job_id} --address {api.shown}"
    )


def _job(info: Any) -> Job:
    metadata = info.metadata or {}
    return Job(
        job_id=info.submission_id,
        status=str(getattr(info.status, "value", info.status)),
        run=metadata.get("run", ""),
        folder=metadata.get("folder", ""),
        started=info.start_time / 1000 if info.start_time else None,
        ended=info.end_time / 1000 if info.end_time else None,
        message=(info.message or "").strip(),
    )
