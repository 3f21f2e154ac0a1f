"""TensorBoard, live: one run per trial, written by the driver as epochs arrive."""

from typing import Any

from ray import tune
from tensorboardX import SummaryWriter

from search.run_folder import RunFolder
from search.unsaved import Unsaved

SCALARS = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "best_val_accuracy",
    "learning_rate",
    "images_per_second",
)


class TensorBoardLogger(Unsaved, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    """Writes every epoch's scalars to `tb/<trial id>/`, flushed at once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._writers: dict[str, SummaryWriter] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch ended."""
        if "epoch" not in result:
            return
        trial_id = trial.config["trial_id"]
        if trial_id not in self._writers:
            folder = self._run.tensorboard_dir / trial_id
            self._writers[trial_id] = SummaryWriter(logdir=str(folder), flush_secs=5)
        writer = self._writers[trial_id]
        for tag in SCALARS:
            if tag in result:
                writer.add_scalar(tag, result[tag], global_step=int(result["epoch"]))
        writer.flush()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended well or was stopped."""
        self._close(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's worker was lost for good."""
        self._close(trial.config["trial_id"])

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """The search is over."""
        for trial_id in list(self._writers):
            self._close(trial_id)

    def _close(self, trial_id: str) -> None:
        writer = self._writers.pop(trial_id, None)
        if writer is not None:
            writer.close()
