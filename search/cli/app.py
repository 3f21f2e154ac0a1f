"""The app `pawtune`: its verbs, in the order of `pawtune --help`.

Nothing heavy is imported before a verb runs: `pawtune --help` must answer at once.
"""

import inspect
import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pawtune.search.cli import model_verbs, page_verbs, search_verbs, setup_verbs, trial_verbs
from pawtune.search.cli import trust_verbs as trust
from pawtune.search.cli.integrations.card_verb import card
from pawtune.search.cli.integrations.push_verb import push
from pawtune.search.cli.integrations.serve_verb import serve
from pawtune.search.cli.jobs import verbs as jobs
from pawtune.search.cli.jobs.status_verb import status
from pawtune.search.cli.options import add_own_code_options
from pawtune.search.cli.runs_verb import runs_app
from pawtune.search.process import Interrupted


class _Verbs(TyperGroup):
    """All verbs: an interruption of one that does not answer it itself."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error
        except SystemExit as error:
            if error.code != signal.SIGTERM:  # as Ray raises it while it starts
                raise
            raise Interrupted from error


app = typer.Typer(
    name="pawtune",
    cls=_Verbs,
    help="Ray-distributed hyperparameter search for image classifiers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"pawtune {version('pawtune')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Ray-distributed hyperparameter search for image classifiers."""


def _help_text(verb: Callable[..., Any]) -> str:
    """Its docstring, a line a paragraph: typer would keep line breaks after the first paragraph."""
    paragraphs = (inspect.getdoc(verb) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for verb in (
    search_verbs.run,
    search_verbs.resume,
    trial_verbs.leaderboard,
    trial_verbs.show,
    model_verbs.best,
    model_verbs.export,
    model_verbs.score,
    model_verbs.predict,
    setup_verbs.preview,
    page_verbs.report,
    page_verbs.plot,
    page_verbs.tensorboard,
    setup_verbs.doctor,
    jobs.submit,
    jobs.list_jobs,
    status,
    jobs.logs,
    jobs.stop,
    trust.confirm,
    trust.refit,
    trust.ensemble,
    trust.audit,
    trust.advise,
    trust.reproduce,
    card,
    push,
    serve,
):
    name = {"score": "test", "list_jobs": "list"}.get(verb.__name__, verb.__name__)
    # Options that `submit` does not know are left over: it reads them as those of `run`.
    leftover = {"allow_extra_args": True, "ignore_unknown_options": True}
    settings = leftover if verb is jobs.submit else None
    app.command(name, context_settings=settings, help=_help_text(verb))(verb)
app.add_typer(setup_verbs.cache_app, name="cache")
app.add_typer(runs_app, name="runs")
add_own_code_options(app)
add_own_code_options(runs_app)
