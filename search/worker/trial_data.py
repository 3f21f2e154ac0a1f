"""What a family's trial is given on a worker: the search's shared work, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pawtune.models.families.family import (
    Activations,
    Backbone,
    Bank,
    CutActivations,
    FeatureArrays,
    Images,
    Labels,
    Pixels,
    PlainFeatures,
    ViewBank,
)
from pawtune.search.shared_work.shared_work import SharedWork

if TYPE_CHECKING:
    import keras

    from pawtune.models.backbones.backbone_graph import BlockEnd
    from pawtune.search.shared_work.features import FeatureStore


@dataclass(frozen=True)
class SharedArrays:
    """A `TrialData`: arrays are read in place (`shared_array`)."""

    work: SharedWork

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.work.class_names)

    @property
    def train_labels(self) -> Labels:
        """(N,) class indices of the training images."""
        return self.work.train_labels

    @property
    def val_labels(self) -> Labels:
        """(M,) class indices of the validation images."""
        return self.work.val_labels

    @property
    def bank_views(self) -> int:
        """Views of an image in the feature banks; 0 where there are none."""
        return self.work.features.views if self.work.features is not None else 0

    def pixels(self, request: Pixels) -> tuple[Images, Images]:
        """Training images (N, S, S, 3) and validation images (M, S, S, 3), read-only."""
        refs = self.work.pixels[request.image_size]
        return refs.train.open(), refs.validation.open()

    def bank(self, request: ViewBank) -> Bank:
        """Features of augmented views, read-only."""
        return self._features.bank(request)

    def features(self, request: PlainFeatures) -> tuple[FeatureArrays, FeatureArrays]:
        """Features of the training and of the validation images; read-only."""
        return self._features.plain(request.backbone)

    def derived(
        self, request: PlainFeatures, what: str, make: Callable[[], FeatureArrays]
    ) -> FeatureArrays:
        """Something computed of features, made once for all trials; read-only."""
        return self._features.derived(request.backbone, what, make)

    def block_ends(self, request: PlainFeatures) -> Sequence["BlockEnd"]:
        """Ends of the backbone's blocks, from bottom to top."""
        return self._features.block_ends(request.backbone)

    def activations(self, request: Activations, cut: "BlockEnd") -> CutActivations:
        """Activations at a cut, kept for all trials or live; read-only."""
        return self._features.activations(request, cut)

    @property
    def _features(self) -> "FeatureStore":
        assert self.work.features is not None  # made for the needs of every trial
        return self.work.features

    def load_backbone(self, request: Backbone) -> "keras.Model":
        """A frozen backbone: (N, S, S, 3) preprocessed pixels to (N, h, w, F), float32."""
        from pawtune.models.backbones.frozen_backbone import load_backbone

        return load_backbone(*request, self.work.backbones[request].file())
