"""Shows a run in TensorBoard, on this machine only unless asked otherwise."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from pawtune.search.config.search_config import load_recorded_config
from pawtune.search.errors import UserError
from pawtune.search.storage.run_folder import RunFolder
from pawtune.search.tensorboard.event_pictures import Samples
from pawtune.search.tensorboard.search_events import SEARCH_RUN, rebuild_events

RELOAD_S = 5
TICKED_RUNS = 40  # up to here TensorBoard's older tabs show every run from the start
# TensorBoard reads event files without TensorFlow, but loads it where it is installed: 8 s until
# the page answers instead of 2. A module of this name is its own switch against that.
WITHOUT_TENSORFLOW = "tensorboard.compat.notf"


def serve(runs: Sequence[RunFolder], host: str = "127.0.0.1", port: int | None = None) -> int:
    """Shows runs until Ctrl-C.

    Args:
        runs: One or more, running or finished.
        host: Address to listen on; only this machine by default, as it has no password.
        port: Port to listen on; by default 6006, or the next one that is free.

    Returns:
        TensorBoard's exit code.

    Raises:
        UserError: There are no event files, and none can be written.
    """
    folders = {run.name: event_folder(run) for run in runs}
    if len(folders) < len(runs):
        raise UserError(
            "runs that are shown together must have different names, received "
            f"{', '.join(run.name for run in runs)}; show one of them"
        )
    for run in runs:
        run.follow(RELOAD_S)
    with tempfile.TemporaryDirectory(prefix="pawtune-tensorboard-") as scratch:
        return _serve(together(folders, Path(scratch)), ", ".join(folders), host, port)


def together(folders: Mapping[str, Path], scratch: Path) -> Path:
    """One folder of event files for TensorBoard: of several runs one that links to each."""
    if len(folders) == 1:
        return next(iter(folders.values()))
    for name, folder in folders.items():
        (scratch / name).symlink_to(folder, target_is_directory=True)
    return scratch


def _serve(folder: Path, title: str, host: str, port: int | None) -> int:
    sys.modules.setdefault(WITHOUT_TENSORFLOW, ModuleType(WITHOUT_TENSORFLOW))
    from tensorboard import default, program

    options = ["--logdir", str(folder), "--host", host, "--window_title", f"pawtune {title}"]
    options += ["--reload_interval", str(RELOAD_S)]
    if port is not None:
        options += ["--port", str(port)]
    if hint := hint_at_ticks(folder):
        print(hint, file=sys.stderr)
    board = program.TensorBoard(default.get_plugins())
    board.configure(argv=["tensorboard", *options])
    return int(board.main())


def hint_at_ticks(folder: Path) -> str:
    """What to do where TensorBoard's older tabs begin empty; nothing where they do not."""
    if len(list(folder.iterdir())) <= TICKED_RUNS:
        return ""
    return (
        f"with more than {TICKED_RUNS} runs TensorBoard ticks none; in Scalars, Images, Text and "
        f"Custom scalars tick those to see: pictures and texts are in {SEARCH_RUN!r}"
    )


def event_folder(run: RunFolder) -> Path:
    """The run's event files; written again from its trials where there are none.

    Raises:
        UserError: There are none, and none can be written.
    """
    if any(run.tensorboard_dir.glob("*/events.out.tfevents.*")):
        return run.tensorboard_dir
    config = load_recorded_config(run.config_file)
    searched = sorted({run.spec_of(trial.trial_id).model.family for trial in run.trials()})
    try:
        rebuild_events(run, config, config.families or searched, Samples(run))
    except OSError as error:
        raise UserError(
            f"a run without event files must be in a folder that can be written, received "
            f"{run.root}: {error.strerror}; copy it to one"
        ) from error
    return run.tensorboard_dir
