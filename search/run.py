"""A finished or running search, opened from its folder: what Python users hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.errors import DataError
from data_pipeline.manifest import Manifest
from search import leaderboard as boards
from search.checkpoints import choose, load_complete, save_complete
from search.config import SearchConfig, load_config
from search.leaderboard import Row
from search.objective import Objective
from search.run_folder import RunFolder, open_run_folder, read_json

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from search.evaluation import TestResult
    from search.export import Exported
    from search.selection import ValidationEstimate


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
        from search.selection import estimate_validation

        try:
            manifest = self.manifest()
        except DataError:
            return None
        rows = self.rows() if rows is None else rows
        return estimate_validation(self.folder, manifest, rows, self.config().metric)

    def best(self, trial_id: str | None = None, rank: int | None = None) -> "keras.Model":
        """The best trial's best epoch, or another trial's, as one complete model.

        Returns:
            (N, H, W, 3) uint8 pixels, any size, to (N, C) float32 class probabilities.

        Raises:
            UserError: No such trial, or none with a finished epoch.
        """
        row = choose(self.rows(), trial_id=trial_id, rank=rank)
        return load_complete(self.folder, row.trial_id, len(self.manifest().class_names))

    def save_best(
        self, out: str | Path | None = None, trial_id: str | None = None, rank: int | None = None
    ) -> tuple[Row, Path]:
        """Writes the model as one `.keras` file with its card; by default into the run folder.

        Raises:
            UserError: No such trial, or `out` cannot be written.
        """
        row, model, card = self._model_and_card(trial_id, rank)
        target = Path(out).expanduser() if out is not None else self.folder.best_model
        save_complete(model, card, target)
        return row, target

    def export(
        self,
        out: str | Path,
        kind: str,
        trial_id: str | None = None,
        rank: int | None = None,
    ) -> tuple[Row, "Exported"]:
        """Writes the model as `keras`, `savedmodel`, `onnx` or `tflite`, with its card.

        Raises:
            UserError: No such trial or format, `out` cannot be written, or the written model does
                not answer as the Keras model does.
        """
        from search.export import check_target, export_model

        target = Path(out).expanduser()
        check_target(kind, target)
        row, model, card = self._model_and_card(trial_id, rank)
        return row, export_model(model, card, kind, target)

    def _model_and_card(
        self, trial_id: str | None, rank: int | None
    ) -> tuple[Row, "keras.Model", dict[str, Any]]:
        from search.model_card import make_card

        rows = self.rows()
        row = choose(rows, trial_id=trial_id, rank=rank)
        manifest = self.manifest()
        card = make_card(self.folder, rows, row, manifest, self.config().metric)
        return row, load_complete(self.folder, row.trial_id, len(manifest.class_names)), card

    def test(
        self,
        data: str | Path | None = None,
        trial_id: str | None = None,
        rank: int | None = None,
    ) -> "TestResult":
        """Scores the best trial on the held-out test split; every look is recorded.

        Args:
            data: Where the images are, if they have moved since the search.
            trial_id: Another trial than the best.
            rank: Another rank than 1.

        Raises:
            UserError: There is no test split, or its images changed.
        """
        from search.evaluation import evaluate

        rows = self.rows()
        row = choose(rows, trial_id=trial_id, rank=rank)
        manifest = self.manifest()
        root = Path(data if data is not None else manifest.root).expanduser()
        return evaluate(self.folder, manifest, root, rows, row)


def open_run(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Opens a run by its path, or by its name under `runs_dir`.

    Raises:
        UserError: There is no such run.
    """
    return Run(open_run_folder(run, runs_dir))
