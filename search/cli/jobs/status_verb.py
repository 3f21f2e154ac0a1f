"""`pawtune status`: how far a run or a job is."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pawtune.search.cli.jobs.options import (
    Address,
    Insecure,
    times,
    where,
)
from pawtune.search.cli.options import Json, RunsDir
from pawtune.search.cli.output import print_json

if TYPE_CHECKING:
    from pawtune.search.jobs.ray_jobs import Job
    from pawtune.search.run import Run


def status(
    name: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run, its folder, or a job.")],
    address: Address = None,
    insecure: Insecure = False,
    runs_dir: RunsDir = "runs",
    watch: Annotated[bool, typer.Option("--watch", help="Follow a run; Ctrl-C leaves it.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far a run or a job is."""
    from pawtune.search.errors import UserError
    from pawtune.search.progress import run_status
    from pawtune.search.run import open_run

    try:
        run = open_run(name, runs_dir)
    except UserError as no_run:
        _job_status(name, address, insecure, no_run, watch, as_json)
        return
    if watch and not as_json:
        _watch(run)
        return
    state = run_status.of_run(run.folder)
    if as_json:
        print_json(run_status.as_dict(run.name, state))
        return
    print(f"run {run.name}: {state.text()}")


def _job_status(
    name: str,
    address: str | None,
    insecure: bool,
    no_run: ValueError,
    watch: bool,
    as_json: bool,
) -> None:
    from pawtune.data_pipeline.sources.object_store import is_address
    from pawtune.search.errors import UserError
    from pawtune.search.jobs import ray_jobs as jobs
    from pawtune.search.jobs.api import JobsApi
    from pawtune.search.progress import run_status

    try:
        api = JobsApi(address, insecure)
        job = jobs.find(api, name)
    except UserError as no_job:
        raise UserError(f"RUN|JOB is neither a run ({no_run}) nor a job ({no_job})") from None
    run, unread = _run_of(job)
    watch = watch and not as_json
    while watch and run is None and not job.ended:
        if unread or not (is_address(job.folder) or api.is_on_this_machine()):
            raise UserError(
                "--watch reads the run's folder, and this machine does not see "
                f"{unread or job.folder}; "
                f"follow the job: pawtune logs {job.job_id} -f{where(address, insecure)}"
            )
        time.sleep(1)  # it is being started
        job = jobs.find(api, job.job_id)
        run, unread = _run_of(job)
    if watch and run is not None:
        _watch(run)
        return
    state = run_status.of_run(run.folder) if run else None
    if as_json:
        print_json(run_status.as_dict(name, state, asdict(job)))
        return
    print(f"job {job.job_id}: {job.status}, {times(job)}; {_message(job)}")
    if state is not None:
        print(f"run {job.run}: {state.text()}")
    elif unread:
        print(f"run {job.run}: not read from here: {unread}")


def _run_of(job: "Job") -> "tuple[Run | None, str]":
    """A job's run; None if it has not begun, or this machine cannot read its folder.

    The text says why it cannot be read: a bucket without credentials, for example.
    """
    from pawtune.data_pipeline.errors import DataError
    from pawtune.search.errors import UserError
    from pawtune.search.run import open_run

    try:
        return open_run(job.folder), ""
    except UserError:
        return None, ""
    except DataError as error:
        return None, str(error)


def _watch(run: "Run") -> None:
    from rich.console import Console

    from pawtune.search.progress import watch as watching

    watching.watch(run.folder, Console(highlight=False))


def _message(job: "Job") -> str:
    """Ray's message about a job in one line; for a failed job, Ray appends its whole output."""
    said, _, printed = job.message.partition(", last available logs")
    last = printed.strip().rpartition("\n")[2]
    return " ".join((f"{said}: {last}" if last else said).split())
