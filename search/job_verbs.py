"""The verbs of `pawtune` about searches on a cluster: submit, list, status, logs, stop."""

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.output import print_json

if TYPE_CHECKING:
    from search.jobs import Job
    from search.jobs_api import JobsApi
    from search.run import Run

Address = Annotated[
    str | None,
    typer.Option(
        help="URL of the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS, else this machine."
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Go on without a token on an address elsewhere.")
]
JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="As `list` names it, or the name of its run.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]


def add_to(app: typer.Typer) -> None:
    """Registers the verbs."""
    # Options that submit does not know are left over, and are read as those of run.
    leave = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=leave)(submit)
    app.command("list")(list_jobs)
    for verb in (status, logs, stop):
        app.command()(verb)


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
    from search import jobs
    from search.cli import app, configured
    from search.errors import UserError

    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    params = run.make_context("submit", list(context.args), parent=context.parent).params
    if params["dry_run"]:
        raise UserError("--dry-run submits nothing, got it with submit; give it to `pawtune run`")
    config = configured(params)
    job = jobs.submit(
        _api(address, insecure), config, shared=shared_path, quiet=bool(params["quiet"])
    )
    if as_json:
        print_json(job.as_dict())
        return
    print(f"submitted as job {job.job_id}; run folder on the cluster: {job.folder}. Next:")
    _next(address, insecure, ("logs", "-f"), ("status",), ("stop",), job_id=job.job_id)


def resume_as_job(
    name: str,
    address: str,
    insecure: bool,
    *,
    more_trials: int,
    retry_failed: bool,
    data: str | None,
    quiet: bool,
    runs_dir: str,
    as_json: bool,
) -> None:
    """`pawtune resume` where its --address is a dashboard's URL."""
    from search import jobs

    api = _api(address, insecure)
    options: Any = {"more_trials": more_trials, "retry_failed": retry_failed, "data": data}
    job = jobs.resume(api, name, quiet=quiet, runs_dir=runs_dir, **options)
    if as_json:
        print_json(job.as_dict())
        return
    print(f"goes on as job {job.job_id}; run folder on the cluster: {job.folder}. Next:")
    _next(address, insecure, ("logs", "-f"), ("status",), ("stop",), job_id=job.job_id)


def list_jobs(address: Address = None, insecure: Insecure = False, as_json: Json = False) -> None:
    """List the searches submitted to a cluster, the newest first."""
    from search import jobs

    api = _api(address, insecure)
    found = jobs.jobs(api)
    if as_json:
        print_json([job.as_dict() for job in found])
        return
    width = max((len(job.job_id) for job in found), default=0)
    for job in found:
        print(f"{job.job_id:<{width}}  {job.status:<9}  {_times(job)}  {job.folder}")
    if not found:
        print(f"no search was submitted to {api.shown} yet. Next:")
        print(f"  pawtune submit --data sample{_where(address, insecure)}")
        return
    print("Next:")
    _next(address, insecure, _logs(found[0]), ("status",), job_id=found[0].job_id)


def status(
    name: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run, its folder, or a job.")],
    address: Address = None,
    insecure: Insecure = False,
    runs_dir: Annotated[str, typer.Option("--runs-dir", help="Where runs are kept.")] = "runs",
    watch: Annotated[bool, typer.Option("--watch", help="Follow a run; Ctrl-C leaves it.")] = False,
    as_json: Json = False,
) -> None:
    """Say how far a run or a job is."""
    from search import run_status
    from search.errors import UserError
    from search.run import open_run

    try:
        run = open_run(name, runs_dir)
    except UserError as no_run:
        _job_status(name, address, insecure, no_run, watch, as_json)
        return
    if watch and not as_json:
        _watch(run)
        return
    state = run_status.of_run(run)
    if as_json:
        print_json(state.as_dict())
        return
    print(f"run {run.name}: {state.text()}. Next:")
    place = shlex.quote(run.folder.place)
    if state.running:
        print(f"  pawtune status {place} --watch")
    elif not state.ended or state.reason:
        print(f"  pawtune resume {place}")
    print(f"  pawtune leaderboard {place}")


def _job_status(
    name: str,
    address: str | None,
    insecure: bool,
    no_run: ValueError,
    watch: bool,
    as_json: bool,
) -> None:
    from data_pipeline.buckets import is_address
    from search import jobs, run_status
    from search.errors import UserError

    try:
        api = _api(address, insecure)
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
                f"follow the job: pawtune logs {job.job_id} -f{_where(address, insecure)}"
            )
        time.sleep(1)  # it is being started
        job = jobs.find(api, job.job_id)
        run, unread = _run_of(job)
    if watch and run is not None:
        _watch(run)
        return
    state = run_status.of_run(run) if run else None
    if as_json:
        print_json({**job.as_dict(), "trials": state.as_dict() if state else None})
        return
    print(f"job {job.job_id}: {job.status}, {_times(job)}; {_message(job)}")
    if state is not None:
        print(f"run {job.run}: {state.text()}")
    elif unread:
        print(f"run {job.run}: not read from here: {unread}")
    print("Next:")
    ways = [_logs(job)]
    if not job.ended:
        ways += [("status", "--watch")] * (state is not None) + [("stop",)]
    _next(address, insecure, *ways, job_id=job.job_id)
    if run is not None and job.status == "SUCCEEDED":
        print(f"  pawtune leaderboard {shlex.quote(run.folder.place)}")
    elif run is not None and job.ended:
        _next(api.shown, insecure, ("resume",), job_id=job.job_id)


def _run_of(job: "Job") -> "tuple[Run | None, str]":
    """A job's run; None if it has not begun, or lies where this machine does not see it.

    The text says what keeps this machine from reading it, as a bucket without credentials does.
    """
    from data_pipeline.errors import DataError
    from search.errors import UserError
    from search.run import open_run

    try:
        return open_run(job.folder), ""
    except UserError:
        return None, ""
    except DataError as error:
        return None, str(error)


def _watch(run: "Run") -> None:
    from rich.console import Console

    from search import watching

    watching.watch(run, Console(highlight=False))


def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: Address = None,
    insecure: Insecure = False,
) -> None:
    """Print what a job has said; with --follow, exit code 1 says that it failed."""
    from search import jobs

    api = _api(address, insecure)
    job = jobs.find(api, job).job_id
    if not follow:
        print(jobs.logs(api, job), end="")
        return
    try:
        jobs.follow(api, job, lambda piece: print(piece, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\njob {job} goes on. Next:", file=sys.stderr)
        _next(address, insecure, ("logs", "-f"), ("stop",), job_id=job, to_stderr=True)
        raise typer.Exit(130) from None
    ended = jobs.find(api, job)
    print(f"job {job}: {ended.status}. Next:", file=sys.stderr)
    _next(address, insecure, ("status",), job_id=job, to_stderr=True)
    if ended.status == "FAILED":
        raise typer.Exit(1)


def stop(
    job: JobArgument, address: Address = None, insecure: Insecure = False, as_json: Json = False
) -> None:
    """End a job in order: finished epochs are kept."""
    from search import jobs

    api = _api(address, insecure)
    ended = jobs.stop(api, job)
    if as_json:
        print_json(ended.as_dict())
        return
    job = ended.job_id
    print(f"job {job}: {ended.status}; what had finished is kept in {ended.folder}. Next:")
    _next(address, insecure, ("logs",), ("status",), job_id=job)
    if ended.status != "SUCCEEDED":
        _next(api.shown, insecure, ("resume",), job_id=job)


def _api(address: str | None, insecure: bool) -> "JobsApi":
    from search.jobs_api import JobsApi

    return JobsApi(address, insecure)


def _logs(job: "Job") -> tuple[str, ...]:
    return ("logs",) if job.ended else ("logs", "-f")


def _message(job: "Job") -> str:
    """What Ray says about a job, in one line; it adds all that a failed one printed."""
    said, _, printed = job.message.partition(", last available logs")
    last = printed.strip().rpartition("\n")[2]
    return " ".join((f"{said}: {last}" if last else said).split())


def _times(job: "Job") -> str:
    if job.started is None:
        return "not started"
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started))
    return f"{began}, {(job.ended or time.time()) - job.started:.0f} s"


def _next(
    address: str | None,
    insecure: bool,
    *ways: tuple[str, ...],
    job_id: str,
    to_stderr: bool = False,
) -> None:
    for verb, *options in ways:
        words = " ".join(["pawtune", verb, job_id, *options])
        print(f"  {words}{_where(address, insecure)}", file=sys.stderr if to_stderr else sys.stdout)


def _where(address: str | None, insecure: bool) -> str:
    """The options that name the same cluster again; a password in an address is left out."""
    from search.redaction import without_secrets

    named = f" --address {shlex.quote(without_secrets(address))}" if address else ""
    return named + (" --insecure" if insecure else "")
