"""The verbs of `pawtune` about searches on a cluster: submit, list, status, logs, stop."""

import sys
from typing import Annotated

import typer

from pawtune.search.cli.jobs.options import (
    Address,
    Insecure,
    print_next,
    print_submitted,
    times,
)
from pawtune.search.cli.options import Json, configured
from pawtune.search.cli.output import print_json

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="As `list` names it, or the name of its run.")
]


def submit(
    context: typer.Context,
    address: Address = None,
    shared_path: Annotated[
        bool, typer.Option("--shared-path", help="This machine's paths hold on the cluster too.")
    ] = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Search on a cluster: takes all options of `run` (pawtune run --help), returns at once.

    Example: pawtune submit --data /shared/pets --runs-dir /shared/runs --name pets
    """
    from pawtune.search.errors import UserError
    from pawtune.search.jobs import ray_jobs as jobs
    from pawtune.search.jobs.api import JobsApi

    assert context.parent is not None  # a verb's parent is pawtune
    run = context.parent.command.commands["run"]  # type: ignore[attr-defined]
    params = run.make_context("submit", list(context.args), parent=context.parent).params
    if params["dry_run"]:
        raise UserError(
            "--dry-run submits nothing, received it with submit; give it to `pawtune run`"
        )
    config, quiet = configured(params), bool(params["quiet"])
    api = JobsApi(address, insecure)
    job = jobs.submit(api, config, shared=shared_path, quiet=quiet)
    print_submitted("submitted", job, address, insecure, as_json)


def list_jobs(address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """List the searches submitted to a cluster, the newest first."""
    from pawtune.search.jobs import ray_jobs as jobs
    from pawtune.search.jobs.api import JobsApi

    api = JobsApi(address, insecure)
    found = jobs.jobs(api)
    if as_json:
        print_json(found)
        return
    width = max((len(job.job_id) for job in found), default=0)
    for job in found:
        print(f"{job.job_id:<{width}}  {job.status:<9}  {times(job)}  {job.folder}")
    if not found:
        print(f"no search was submitted to {api.shown} yet")


def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The last N lines; default: all.")
    ] = None,
    address: Address = None,
    insecure: Insecure = False,
) -> None:
    """Print what a job has said; with --follow, exit code 1 says that it failed."""
    from pawtune.search.errors import UserError
    from pawtune.search.jobs import ray_jobs as jobs
    from pawtune.search.jobs.api import JobsApi

    api = JobsApi(address, insecure)
    job = jobs.find(api, job).job_id
    if follow and tail is not None:
        raise UserError(
            f"--tail is for what a job has printed so far, received {tail} with --follow; leave "
            "one of them out"
        )
    if not follow:
        printed = jobs.logs(api, job).splitlines(keepends=True)
        print("".join(printed if tail is None else printed[max(0, len(printed) - tail) :]), end="")
        return
    try:
        jobs.follow(api, job, lambda piece: print(piece, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\njob {job} continues. Next:", file=sys.stderr)
        print_next(address, insecure, ("logs", "-f"), ("stop",), job_id=job, to_stderr=True)
        raise typer.Exit(130) from None
    ended = jobs.find(api, job)
    print(f"job {job}: {ended.status}", file=sys.stderr)
    if ended.status == "FAILED":
        raise typer.Exit(1)


def stop(
    job: JobArgument, address: Address = None, insecure: Insecure = False, as_json: Json = False
) -> None:
    """End a job in order: finished epochs are kept."""
    from pawtune.search.jobs import ray_jobs as jobs
    from pawtune.search.jobs.api import JobsApi

    api = JobsApi(address, insecure)
    ended = jobs.stop(api, job)
    if as_json:
        print_json(ended)
        return
    job = ended.job_id
    print(f"job {job}: {ended.status}; what had finished is kept in {ended.folder}. Next:")
    print_next(address, insecure, ("logs",), ("status",), job_id=job)
    if ended.status != "SUCCEEDED":
        print_next(api.shown, insecure, ("resume",), job_id=job)
