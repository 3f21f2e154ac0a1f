"""`Run`: a finished or running search and its results, for use from Python."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawtune.data_pipeline.safe_files import expanded
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.search.config.search_config import SearchConfig, load_recorded_config
from pawtune.search.errors import readable_in_python
from pawtune.search.results import leaderboard as boards
from pawtune.search.results.leaderboard import Row
from pawtune.search.results.model_choice import (
    ModelChoice,
    choose_model,
    choose_row,
)
from pawtune.search.storage.history import read_history
from pawtune.search.storage.records import RunSummary
from pawtune.search.storage.run_folder import RunFolder, open_run_folder

if TYPE_CHECKING:
    import keras
    import numpy as np
    import optuna
    import pandas as pd
    from numpy.typing import NDArray

    from pawtune.search.out_of_fold.advice import Advice
    from pawtune.search.out_of_fold.audit import Audit
    from pawtune.search.progress.reporter import Reporter
    from pawtune.search.results.delivery.export import Exported
    from pawtune.search.results.delivery.opened import OpenedModel
    from pawtune.search.results.ensembles.combination import EnsembleResult
    from pawtune.search.results.ensembles.soup import SoupSetting
    from pawtune.search.results.evaluation import TestResult
    from pawtune.search.results.model_choice import Kind
    from pawtune.search.results.selection_bias import ValidationEstimate
    from pawtune.search.retraining.confirm import Confirmation
    from pawtune.search.retraining.refit import Refit
    from pawtune.search.retraining.reproduce import Reproduction


class Run:
    """One search and its results.

    Example:
        >>> run = open_run("runs/pets")  # doctest: +SKIP
        >>> first = run.leaderboard().iloc[0]  # doctest: +SKIP
        >>> curve = run.history()["val_accuracy"]  # doctest: +SKIP
        >>> model = run.best()  # doctest: +SKIP
        >>> low, high = run.test().interval_95  # doctest: +SKIP
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Run({self.folder.place!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: headline, the first trials, their learning curves."""
        from pawtune.search.progress.run_html import run_html

        rows = self.rows()
        return run_html(self.folder, rows, self.config().objective.metric, self.validation(rows))

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.name

    @property
    def study(self) -> "optuna.Study":
        """The trials that have ended, as an Optuna study in memory: for plots and for analysis.

        Example:
            >>> best = open_run("runs/pets").study.best_trial  # doctest: +SKIP
            >>> family = best.params["family"]  # doctest: +SKIP
        """
        from pawtune.search.sampling.past_study import make_study

        config = self.config()
        return make_study(read_history(self.folder, config.objective), config, self.name)

    def config(self) -> SearchConfig:
        """The resolved configuration that the search ran with."""
        return load_recorded_config(self.folder.config_file)

    def manifest(self) -> Manifest:
        """The manifest: which image is in which split."""
        return Manifest.load(self.folder.root)

    def rows(self) -> list[Row]:
        """The leaderboard as typed rows, best first, failed trials last."""
        return boards.rank_trials(self.folder, self.config().objective)

    def leaderboard(self) -> "pd.DataFrame":
        """The leaderboard as a DataFrame, best first, failed trials last."""
        return boards.as_frame(self.rows())

    @readable_in_python
    def history(self, trial: str | None = None) -> "pd.DataFrame":
        """A trial epoch by epoch: loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.

        Args:
            trial: Its id or name; by default the best trial.

        Returns:
            One line a finished epoch; none where the trial has not finished one.

        Raises:
            UserError: No such trial.
        """
        import pandas as pd

        rows = self.rows()
        row = next((row for row in rows if trial in (row.trial_id, row.name)), None)
        if trial is None:
            row = choose_row(rows)
        folder = self.folder.trial(row.trial_id if row is not None else str(trial))
        return pd.DataFrame(folder.read_metrics())

    def summary(self) -> dict[str, Any]:
        """How the search ended: `reason` (None: all trials ran), `seconds`, `counts`."""
        return RunSummary.read(self.folder.summary_file).as_dict()

    def validation(self, rows: Sequence[Row] | None = None) -> "ValidationEstimate | None":
        """The best trial's validation accuracy, uncorrected and corrected for choosing among many.

        Args:
            rows: The leaderboard, if it was read before; by default it is read now.

        Returns:
            None where no trial has finished an epoch, or where the best trial's predictions or the
            manifest cannot be read.
        """
        from pawtune.search.results.selection_bias import estimate_validation

        rows = self.rows() if rows is None else rows
        return estimate_validation(self.folder, rows, self.config().objective.metric)

    @readable_in_python
    def choose(
        self,
        trial: str | None = None,
        rank: int | None = None,
        kind: "Kind" = "trial",
        *,
        max_latency_ms: float | None = None,
    ) -> ModelChoice:
        """One of the run's models, to be handed to `best`, `test`, `export` and others.

        Args:
            trial: Id or name of another trial than the best.
            rank: Another rank than 1.
            kind: `trial`; or `refit` or `ensemble`, where they were made.
            max_latency_ms: The best of the trials that answer within this time, where the search
                measured it: `objectives=("accuracy", "latency_ms")`.

        Raises:
            UserError: No such model, or a trial with no finished epoch.
        """
        return choose_model(
            self.folder,
            self.rows(),
            trial=trial,
            rank=rank,
            kind=kind,
            max_latency_ms=max_latency_ms,
        )

    def _chosen(self, model: ModelChoice | str | None) -> ModelChoice:
        return model if isinstance(model, ModelChoice) else self.choose(model)

    @readable_in_python
    def best(
        self, model: ModelChoice | str | None = None, *, max_latency_ms: float | None = None
    ) -> "keras.Model":
        """The best trial's best epoch, or another model of the run, as one complete model.

        Args:
            model: A choice from `choose`, or a trial's id or name; by default the best trial.
            max_latency_ms: Instead of `model`: the best of the trials that answer within this
                time, where the search measured it.

        Returns:
            (N, H, W, 3) pixels 0 to 255, any size, to (N, C) float32 class probabilities.

        Raises:
            UserError: No such model, or a trial with no finished epoch.
        """
        from pawtune.search.results.best_model import load_choice

        if max_latency_ms is not None:
            model = self.choose(
                model if isinstance(model, str) else None, max_latency_ms=max_latency_ms
            )
        return load_choice(self.folder, self._chosen(model), len(self.manifest().class_names))

    @readable_in_python
    def predictor(
        self,
        model: ModelChoice | str | None = None,
        *,
        coverage: float | None = None,
        reporter: "Reporter | None" = None,
    ) -> "OpenedModel":
        """A model of the run, ready to predict as `pawtune predict` does.

        Its predictions include novelty where the run's images are at hand, or novelty was measured
        before.

        Args:
            model: Model, as `best` takes it.
            coverage: Also give label sets that hold the true label so often, between 0 and 1.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError: No such model, a trial with no finished epoch, or label sets of a model
                without validation predictions of its own.
            ModelError: Too few validation images for this coverage.
        """
        from pawtune.search.results.delivery.run_model import open_choice

        progress = reporter.stage if reporter is not None else None
        return open_choice(self.folder, self._chosen(model), self.manifest(), coverage, progress)

    @readable_in_python
    def predict(
        self,
        images: "str | Path | Sequence[str | Path] | NDArray[np.uint8]",
        model: ModelChoice | str | None = None,
    ) -> "pd.DataFrame":
        """Labels for images.

        Example:
            >>> run = open_run("runs/pets")  # doctest: +SKIP
            >>> labels = run.predict(run.manifest().root)["label"]  # doctest: +SKIP

        Args:
            images: A file or folder, several of them, or (N, H, W, 3) uint8 pixels.
            model: Model, as `best` takes it.

        Returns:
            One line an image: `path` (of files), `label`, `confidence`, and each class's
            probability as `probability.<class>`. A file that cannot be read has a `reason`.

        Raises:
            UserError, DataError: No such model, or `images` are none of these.
        """
        import pandas as pd

        from pawtune.search.results.delivery.predict import predict_images

        return pd.DataFrame(predict_images(self.predictor(model), images))

    @readable_in_python
    def save_best(
        self,
        out: str | Path | None = None,
        model: ModelChoice | str | None = None,
        *,
        force: bool = False,
        reporter: "Reporter | None" = None,
    ) -> tuple[ModelChoice, Path]:
        """Writes the model as one `.keras` file with its card; by default into the run folder.

        Args:
            out: The file.
            model: Model, as `best` takes it.
            force: Replace `out` where it exists; the run's own file is always replaced.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError: No such model, or `out` exists or cannot be written.
        """
        from pawtune.search.results.delivery.run_model import keras_target, save_choice

        choice = self._chosen(model)
        target = keras_target(self.folder, choice, out, force)
        complete, card = self.model_and_card(choice)
        progress = reporter.stage if reporter is not None else None
        save_choice(self.folder, choice, self.manifest(), complete, card, target, progress)
        return choice, target

    @readable_in_python
    def export(
        self,
        out: str | Path,
        format: str,
        model: ModelChoice | str | None = None,
        *,
        dynamic: bool = False,
        force: bool = False,
    ) -> tuple[ModelChoice, "Exported"]:
        """Writes the model as `keras`, `savedmodel`, `onnx` or `tflite`, with its card.

        Args:
            out: The file; of a SavedModel a folder.
            format: One of these names.
            model: Model, as `best` takes it.
            dynamic: A TFLite file for any number of images of any size, rather than for one image
                of the side that the model was trained at.
            force: Replace `out` where it exists.

        Raises:
            UserError: No such model or format, `out` exists or cannot be written, or the written
                model does not answer as the Keras model does.
        """
        from pawtune.search.results.delivery.export import check_target, export_model

        target = expanded(out)
        check_target(format, target, dynamic=dynamic, force=force)
        choice = self._chosen(model)
        complete, card = self.model_and_card(choice)
        return choice, export_model(complete, card, format, target, dynamic=dynamic, force=force)

    def model_and_card(self, choice: ModelChoice) -> tuple["keras.Model", dict[str, Any]]:
        """A complete model, and its card as plain JSON values."""
        from pawtune.search.results.best_model import load_choice
        from pawtune.search.results.delivery.model_card import make_card

        manifest = self.manifest()
        card = make_card(self.folder, self.rows(), choice, manifest, self.config().objective.metric)
        return load_choice(self.folder, choice, len(manifest.class_names)), card

    @readable_in_python
    def test(
        self, data: str | Path | None = None, model: ModelChoice | str | None = None
    ) -> "TestResult":
        """Scores a model on the held-out test split; every look is recorded.

        Args:
            data: Place of the images, if they have moved since the search.
            model: Model, as `best` takes it.

        Raises:
            UserError: There is no such model or no test split, or its images changed.
        """
        from pawtune.search.results.evaluation import look_at_test

        choice, manifest = self._chosen(model), self.manifest()
        root = expanded(data if data is not None else manifest.root)
        return look_at_test(self.folder, manifest, root, self.rows(), choice).result

    @readable_in_python
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
            data: Place of the images, if they have moved.
            address: A Ray cluster, or "local"; by default the search's.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No trial to confirm, or the images are not those of the search.
        """
        from pawtune.search.retraining.confirm import confirm_trials

        return confirm_trials(
            self.folder,
            self.rows(),
            self.config().objective.metric,
            top=top,
            seeds=seeds,
            data=data,
            address=address,
            reporter=reporter,
        )

    @readable_in_python
    def refit(
        self,
        model: ModelChoice | str | None = None,
        *,
        data: str | None = None,
        address: str | None = None,
        reporter: "Reporter | None" = None,
    ) -> "Refit":
        """Trains the best trial on training and validation images, for its best number of epochs.

        Args:
            model: Another trial than the best: what `choose` gives, or its id or name.
            data: Place of the images, if they have moved.
            address: A Ray cluster, or "local"; by default the search's.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No such trial, or the images are not those of the search.
        """
        from pawtune.search.retraining.refit import refit_trial

        row = self._chosen(model).row
        return refit_trial(self.folder, row, data=data, address=address, reporter=reporter)

    @readable_in_python
    def audit(
        self,
        *,
        retrain: bool = False,
        test: bool = False,
        data: str | None = None,
        address: str | None = None,
        reporter: "Reporter | None" = None,
    ) -> "tuple[Audit, Path]":
        """Looks for wrong labels, copies and outliers among training and validation images.

        Args:
            retrain: Predict each image by the best trial, trained five times, rather than by a
                ridge head on features of a frozen backbone.
            test: Audit the labels of the test split too, by the best trial: a look, on record.
            data: Place of the images, if they have moved.
            address: A Ray cluster to train on, or "local"; by default the search's.
            reporter: Shows progress; by default nothing is shown.

        Returns:
            What was found, and the page to decide on each finding.

        Raises:
            UserError, DataError: The run has no frozen backbone, or images are gone.
        """
        from pawtune.search.out_of_fold.audit import audit_run
        from pawtune.search.out_of_fold.audit_page import write_page
        from pawtune.search.progress.reporter import default_reporter
        from pawtune.search.retraining.folds import predict_by_folds
        from pawtune.search.retraining.setup import locate_images

        reporter = reporter or default_reporter()
        config, rows = self.config(), self.rows()
        manifest = locate_images(self.folder, config, data, reporter)
        retrained = None
        if retrain:
            retrained = predict_by_folds(
                self.folder,
                manifest,
                choose_row(rows),
                data=data,
                address=address,
                reporter=reporter,
            )
        found = audit_run(
            self.folder, config, manifest, rows, reporter.stage, retrained=retrained, test=test
        )
        return found, write_page(self.folder, found, manifest)

    @readable_in_python
    def advise(self, *, data: str | None = None, reporter: "Reporter | None" = None) -> "Advice":
        """What more images would bring: the learning curve of a solved head, and its fit.

        Args:
            data: Place of the images, if they have moved.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: The run has no frozen backbone, or too few images.
        """
        from pawtune.search.out_of_fold.advice import advise_run
        from pawtune.search.progress.reporter import default_reporter
        from pawtune.search.retraining.setup import locate_images

        reporter = reporter or default_reporter()
        config = self.config()
        manifest = locate_images(self.folder, config, data, reporter)
        return advise_run(self.folder, config, manifest, self.rows(), reporter.stage)

    @readable_in_python
    def ensemble(
        self,
        top: int | None = None,
        anyway: bool = False,
        *,
        soup: bool = False,
        data: str | None = None,
        reporter: "Reporter | None" = None,
    ) -> "EnsembleResult":
        """Combines the best trials; keeps the combination as one model if it wins on validation.

        They vote: the mean of their probabilities. Or their weights are averaged, which makes a
        model no larger or slower than one of them: linear heads on the same features, or tops of
        one backbone that were fine-tuned from the same cut.

        Args:
            top: How many trials vote, by default 3; of a soup, how many may be averaged, by
                default all that can.
            anyway: Keep it even if it does not win; a soup that only the best trial is in never is.
            soup: Average weights instead of a vote: a greedy soup, see
                https://arxiv.org/abs/2203.05482.
            data: Place of the images, if they have moved; a soup of fine-tuned trials predicts
                the validation images.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: Fewer than two trials can be combined, or the validation images
                are not those of the search.
        """
        from pawtune.search.results.ensembles.ensemble import make_ensemble

        setting = self._soup_setting(data, reporter) if soup else None
        return make_ensemble(
            self.folder,
            self.rows(),
            self.manifest(),
            self.config().objective.metric,
            top=top,
            anyway=anyway,
            soup=setting,
        )

    def _soup_setting(self, data: str | None, reporter: "Reporter | None") -> "SoupSetting":
        from pawtune.search.config.own_metric import measure, metric_in_use
        from pawtune.search.progress.reporter import default_reporter
        from pawtune.search.results.ensembles.soup import SoupSetting
        from pawtune.search.retraining.setup import locate_images

        config = self.config()
        shown = reporter or default_reporter()
        function = metric_in_use(config.metric)
        return SoupSetting(
            objective=config.objective,
            locate=lambda: locate_images(self.folder, config, data, shown),
            own_metric=partial(measure, function, config.objective.metric) if function else None,
            progress=shown.stage,
        )

    @readable_in_python
    def reproduce(
        self,
        model: ModelChoice | str | None = None,
        *,
        data: str | None = None,
        address: str | None = None,
        tolerance: float | None = None,
        reporter: "Reporter | None" = None,
    ) -> "Reproduction":
        """Trains a trial again and compares every epoch; the run folder is only read.

        Args:
            model: Another trial than the best: what `choose` gives, or its id or name.
            data: Place of the images, if they have moved.
            address: A Ray cluster; by default this machine.
            tolerance: Allowed difference of a metric; by default 0 on the same machine.
            reporter: Shows progress; by default nothing is shown.

        Raises:
            UserError, DataError: No such trial, or the images are not those of the search.
        """
        from pawtune.search.retraining.reproduce import reproduce_trial

        return reproduce_trial(
            self.folder,
            self._chosen(model).row,
            data=data,
            address=address,
            tolerance=tolerance,
            reporter=reporter,
        )


@readable_in_python
def open_run(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Opens a run by its path, or by its name under `runs_dir`.

    Example:
        >>> run = open_run("pets")  # doctest: +SKIP
        >>> reason = run.summary()["reason"]  # doctest: +SKIP

    Raises:
        UserError: There is no such run.
    """
    return Run(open_run_folder(run, runs_dir))
