"""Pictures of a run's data for its event files; none where the images cannot be read."""

from pathlib import Path

from pawtune.data_pipeline.errors import DataError
from pawtune.data_pipeline.images.pictures import (
    Pixels,
    augmented_views,
    choose_samples,
    montage,
    read_thumbnail,
)
from pawtune.data_pipeline.splitting.manifest import Manifest
from pawtune.models.model_spec import AUGMENTATION_FIELDS, ModelSpec
from pawtune.search.results.validation import read_validation
from pawtune.search.storage.run_folder import RunFolder, TrialFolder

VIEWS = 6
VIEW_PX = 72
COLUMNS = 6
MAX_SAMPLE_CLASSES = 10
MAX_MISTAKES = 18


class Samples:
    """What there is to show of a run's images; a thing that cannot be shown is None."""

    def __init__(self, run: RunFolder) -> None:
        self.manifest: Manifest | None = None
        self._example: Pixels | None = None
        try:
            self.manifest = Manifest.load(run.root)
        except DataError:
            return
        root = Path(self.manifest.root)
        first = self.manifest.split("train")[0]
        self._example = read_thumbnail(root, first, VIEW_PX)

    def views(self, spec: ModelSpec) -> Pixels | None:
        """One image as a trial may see it in six epochs: (H, W, 3) uint8."""
        if self._example is None:
            return None
        factors = spec.model_dump(include=AUGMENTATION_FIELDS)
        return montage([augmented_views(self._example, VIEWS, **factors)])

    def grid(self) -> Pixels | None:
        """Training images, a row a class: (H, W, 3) uint8."""
        if self.manifest is None:
            return None
        root = Path(self.manifest.root)
        names = self.manifest.class_names[:MAX_SAMPLE_CLASSES]
        chosen = choose_samples(self.manifest.split("train"), names, COLUMNS)
        rows = [
            [picture for entry in entries if (picture := read_thumbnail(root, entry)) is not None]
            for entries in chosen.values()
        ]
        full = [row for row in rows if row]
        return montage(full) if full else None

    def mistakes(self, trial: TrialFolder) -> dict[str, Pixels]:
        """A trial's confusion matrix and worst mistakes, by name: (H, W, 3) uint8 each."""
        # Matplotlib takes half a second to load: here once, when a search ends.
        from pawtune.search.report.result_figures import draw_confusion_picture

        if self.manifest is None:
            return {}
        view = read_validation(trial, self.manifest)
        if isinstance(view, str):
            return {}
        names = self.manifest.class_names
        pictures = {"confusion": draw_confusion_picture(view.confusion, names)}
        root = Path(self.manifest.root)
        worst = [read_thumbnail(root, mistake.entry) for mistake in view.mistakes[:MAX_MISTAKES]]
        shown = [picture for picture in worst if picture is not None]
        if shown:
            rows = [shown[n : n + COLUMNS] for n in range(0, len(shown), COLUMNS)]
            pictures["mistakes"] = montage(rows)
        return pictures
