"""A finished or running search, opened from its folder: what Python users hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.config.search_config import SearchConfig, load_config
from pawtune.search.objective import Objective
from pawtune.search.results import leaderboard as boards
from pawtune.search.results.best_model import choose, save_complete
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import choose_model, default_file, load_chosen
from pawtune.search.storage.run_folder import RunFolder, open_run_folder, read_json

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.results.ensemble import EnsembleResult
    from pawtune.search.results.evaluation import TestResult
    from pawtune.search.results.export import Exported
    from pawtune.search.results.model_choice import Kind, ModelChoice
    from pawtune.search.results.selection_bias import ValidationEstimate
    from pawtune.search.retraining.confirm import Confirmation
    from pawtune.search.retraining.refit import Refit
    from pawtune.search.retraining.reproduce import Reproduction


class Run:
    """One search and its results.

    Example:
        >>> run = open_run("runs/pets")  # doctest: +SKIP
        >>> run.leaderboard().head()  # doctest: +SKIP
        >>> model = run.best()  # doctest: +SKIP
        >>> run.test().interval_95  # doctest: +SKIP
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.name

    def config(self) -> SearchConfig:
        """The resolved configuration that the search ran with."""
        return load_config(self.folder.config_file, [], {})

    def manifest(self) -> Manifest:
        """Who is in which split."""
        return Manifest.load(self.folder.root)

    def rows(self) -> list[Row]:
        """The leaderboard as typed rows, best first, failed trials last."""
        return boards.rank_trials(self.folder, Objective(self.config().metric))

    def leaderboard(self) -> "pd.DataFrame":
        """The leaderboard as a DataFrame, best first, failed trials last."""
        return boards.as_frame(self.rows())

    def summary(self) -> dict[str, Any]:
        """How the search ended: `reason` (None: all trials ran), `seconds`, `counts`."""
        return read_json(self.folder.summary_file)

    def validation(self, rows: Sequence[Row] | None = None) -> "ValidationEstimate | None":
        """The winner's validation accuracy, as seen and corrected for the choice among many.

        Args:
            rows: The leaderboard, where it is at hand.

        Returns:
            None where no trial has finished an epoch, or where the winner's predictions or the
            manifest cannot be read.
        """
        from pawtune.search.results.selection_bias import estimate_validation

        try:
            manifest = self.manifest()
        except DataError:
            return None
        rows = self.rows() if rows is None else rows
        return estimate_validation(self.folder, manifest, rows, self.config().metric)

    def best(
        self, trial_id: str | None = None, rank: int | None = None, kind: "Kind" = "trial"
    ) -> "keras.Model":
        """The best trial's best epoch, or another model of the run, as one complete model.

        Args:
            trial_id: Another trial than the best.
            rank: Another rank than 1.
            kind: `trial`; or `refit` or `ensemble`, where they were made.

        Returns:
            (N, H, W, 3) uint8 pixels, any size, to (N, C) float32 class probabilities.

        Raises:
            UserError: No such model, or a trial with no finished epoch.
        """
        chosen = choose_model(self.folder, self.rows(), trial_id=trial_id, rank=rank, kind=kind)
        return load_chosen(self.folder, chosen, len(self.manifest().class_names))

    def save_best(
        self,
        out: str | Path | None = None,
        trial_id: str | None = None,
        rank: int | None = None,
        kind: "Kind" = "trial",
    ) -> tuple["ModelChoice", Path]:
        """Writes the model as one `.keras` file with its card; by default into the run folder.

        Raises:
            UserError: No such model, or `out` cannot be written.
        """
        chosen, model, card = self._model_and_card(trial_id, rank, kind)
        target = Path(out).expanduser() if out is not None else default_file(self.folder, chosen)
        save_complete(model, card, target)
        self.folder.keep_new()
        return chosen, target

    def export(
        self,
        out: str | Path,
        format: str,
        trial_id: str | None = None,
        rank: int | None = None,
        kind: "Kind" = "trial",
    ) -> tuple["ModelChoice", "Exported"]:
        """Writes the model as `keras`, `savedmodel`, `onnx` or `tflite`, with its card.

        Raises:
            UserError: No such model or format, `out` cannot be written, or the written model does
                not answer as the Keras model does.
        """
        from pawtune.search.results.export import check_target, export_model

        target = Path(out).expanduser()
        check_target(format, target)
        chosen, model, card = self._model_and_card(trial_id, rank, kind)
        return chosen, export_model(model, card, format, target)

    def _model_and_card(
        self, trial_id: str | None, rank: int | None, kind: "Kind"
    ) -> tuple["ModelChoice", "keras.Model", dict[str, Any]]:
        from pawtune.search.results.model_card import make_card

        rows = self.rows()
        chosen = choose_model(self.folder, rows, trial_id=trial_id, rank=rank, kind=kind)
        manifest = self.manifest()
        card = make_card(self.folder, rows, chosen, manifest, self.config().metric)
        return chosen, load_chosen(self.folder, chosen, len(manifest.class_names)), card

    def test(
        self,
        data: str | Path | None = None,
        trial_id: str | None = None,
        rank: int | None = None,
        kind: "Kind" = "trial",
    ) -> "TestResult":
        """Scores a model on the held-out test split; every look is recorded.

        Args:
            data: Where the images are, if they have moved since the search.
            trial_id: Another trial than the best.
            rank: Another rank than 1.
            kind: `trial`; or `refit` or `ensemble`, where they were made.

        Raises:
            UserError: There is no such model or no test split, or its images changed.
        """
        from pawtune.search.results.evaluation import evaluate

        rows = self.rows()
        chosen = choose_model(self.folder, rows, trial_id=trial_id, rank=rank, kind=kind)
        manifest = self.manifest()
        root = Path(data if data is not None else manifest.root).expanduser()
        return evaluate(self.folder, manifest, root, rows, chosen)

    def confirm(
        self,
        top: int = 3,
        seeds: int = 3,
        *,
        data: str | None = None,
        address: str | None = None,
        reporter: "Reporter | None" = None,
    ) -> "Confirmation":
        """Trains the best trials again with other seeds; finished ones are not repeated.

        Args:
            top: How many trials.
            seeds: How many other seeds each.
            data: Where the images are, if they have moved.
            address: A Ray cluster, or "local"; by default the search's.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No trial to confirm, or the images are not those of the search.
        """
        from pawtune.search.retraining.confirm import confirm_trials

        confirmation = confirm_trials(
            self.folder,
            self.rows(),
            self.config().metric,
            top=top,
            seeds=seeds,
            data=data,
            address=address,
            reporter=reporter,
        )
        self.folder.keep_new()
        return confirmation

    def refit(
        self,
        trial_id: str | None = None,
        rank: int | None = None,
        *,
        data: str | None = None,
        address: str | None = None,
        reporter: "Reporter | None" = None,
    ) -> "Refit":
        """Trains the best trial on training and validation images, for its best number of epochs.

        Args:
            trial_id: Another trial than the best.
            rank: Another rank than 1.
            data: Where the images are, if they have moved.
            address: A Ray cluster, or "local"; by default the search's.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No such trial, or the images are not those of the search.
        """
        from pawtune.search.retraining.refit import refit_trial

        row = choose(self.rows(), trial_id=trial_id, rank=rank)
        refit = refit_trial(self.folder, row, data=data, address=address, reporter=reporter)
        self.folder.keep_new()
        return refit

    def ensemble(self, top: int = 3, anyway: bool = False) -> "EnsembleResult":
        """Lets the best trials vote; keeps the vote as one model where it wins on validation.

        Args:
            top: How many trials vote.
            anyway: Keep it even if it does not win.

        Raises:
            UserError: Fewer than two trials can vote.
        """
        from pawtune.search.results.ensemble import make_ensemble

        metric = self.config().metric
        vote = make_ensemble(
            self.folder, self.rows(), self.manifest(), metric, top=top, anyway=anyway
        )
        self.folder.keep_new()
        return vote

    def reproduce(
        self,
        trial_id: str | None = None,
        rank: int | None = None,
        *,
        data: str | None = None,
        address: str | None = None,
        tolerance: float | None = None,
        reporter: "Reporter | None" = None,
    ) -> "Reproduction":
        """Trains a trial again and compares every epoch; the run folder is only read.

        Args:
            trial_id: Another trial than the best.
            rank: Another rank than 1.
            data: Where the images are, if they have moved.
            address: A Ray cluster; by default this machine.
            tolerance: Allowed difference of a metric; by default 0 on the same machine.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No such trial, or the images are not those of the search.
        """
        from pawtune.search.retraining.reproduce import reproduce_trial

        return reproduce_trial(
            self.folder,
            choose(self.rows(), trial_id=trial_id, rank=rank),
            data=data,
            address=address,
            tolerance=tolerance,
            reporter=reporter,
        )


def open_run(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Opens a run by its path, or by its name under `runs_dir`.

    Raises:
        UserError: There is no such run.
    """
    return Run(open_run_folder(run, runs_dir))
