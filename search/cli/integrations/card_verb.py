"""`pawtune card`: a folder for a model hub."""

from pathlib import Path
from typing import Annotated

import typer

from pawtune.search.cli.options import (
    Ensemble,
    Json,
    Rank,
    Refit,
    RunArgument,
    RunsDir,
    Trial,
    kind_of,
)
from pawtune.search.cli.output import print_json


def card(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    data_license: Annotated[
        str | None, typer.Option(metavar="URL", help="Licence of the images.", show_default="none")
    ] = None,
    trial: Trial = None,
    rank: Rank = None,
    refit: Refit = False,
    ensemble: Ensemble = False,
    runs_dir: RunsDir = "runs",
    as_json: Json = False,
) -> None:
    """Write a folder that a model hub takes as it is: model, card, Croissant of the data.

    Example: pawtune card pets --out pets-model
    """
    from pawtune.search.integrations.hub_folder import write_hub_folder
    from pawtune.search.run import open_run

    opened = open_run(run, runs_dir)
    choice = opened.choose(trial, rank, kind_of(refit, ensemble))
    files = write_hub_folder(opened, out, choice, data_license=data_license)
    if as_json:
        print_json({"path": str(out), "files": [file.name for file in files]})
        return
    print(f"{choice.title} → {out}: {', '.join(file.name for file in files)}. Next:")
    print(f"  hf upload NAME/MODEL {out}")
