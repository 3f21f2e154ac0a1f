"""Compiled steps have a GPU kernel for each operation, and never wait for the GPU in between."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pawtune.models.backbones.backbone_graph import split_at
from pawtune.models.backbones.batch_norm_folding import fold_backbone
from pawtune.models.backbones.tuned_top import build_tuned
from pawtune.models.build import make_optimizer
from pawtune.models.families.conv import ConvSpec
from pawtune.models.families.transfer import TransferSpec, build_head
from pawtune.models.features.activations import ActivationEncoder
from pawtune.models.features.tap_encoder import TapEncoder
from pawtune.models.features.view_encoder import ViewEncoder
from pawtune.models.model_spec import Optimizer, TrainSpec
from pawtune.models.precision import precision
from pawtune.models.training import finetuning
from pawtune.models.training.finetuning import TuningRecipe
from pawtune.models.training.fused_batch_norm import BatchNormMeasurement
from pawtune.models.training.head_training import compile_epoch
from pawtune.models.training.live_training import compile_step
from tests.gpu_kernels import gpu_faults, has_registered_gpu_kernels
from tests.networks import network_of

pytestmark = pytest.mark.skipif(
    not has_registered_gpu_kernels(), reason="this build of TensorFlow registers no GPU kernels"
)
SIZE = 32
CONV = ConvSpec(
    image_size=SIZE, filters=(4,), batch_norm=True, flip="horizontal", rotation_factor=0.1
)
# Keras keeps a layer's random state as a variable of two int32, and TensorFlow reads seeds on the
# host: some bytes a step.
SEEDS = "StatelessRandomGetKeyCounter"


# The gradient of Keras' global average puts a shape of four numbers together on the GPU.
GLOBAL_AVERAGE = "Reshape(float32, int32) waits for the GPU: its 'shape'"
RECIPE = TrainSpec(schedule="cosine", label_smoothing=0.1)


def live_step(optimizer: Optimizer, spec: ConvSpec = CONV, train: TrainSpec | None = None) -> Any:
    network = network_of(spec, 3, seed=0)
    train = (train or TrainSpec()).model_copy(update={"optimizer": optimizer})
    chosen = make_optimizer(train, 100)
    chosen.build(network.core.trainable_variables)
    weights = np.ones(3, np.float32)
    step = compile_step(network.model, chosen, weights, train.label_smoothing)
    return step.get_concrete_function()  # type: ignore[attr-defined]


def half_step() -> Any:
    spec = CONV.model_copy(update={"image_size": 2 * SIZE, "pooling": "global_average"})
    network = network_of(spec, 3, seed=0, with_half=True)
    optimizer = make_optimizer(TrainSpec(), 100)
    optimizer.build(network.core.trainable_variables)
    step = compile_step(network.half, optimizer, None)
    return step.get_concrete_function()  # type: ignore[attr-defined]


def head_epoch() -> Any:
    head = build_head(TransferSpec(dense_width=8), 3, 16)
    optimizer = make_optimizer(TrainSpec(optimizer="adamw"), 100)
    optimizer.build(head.trainable_variables)
    epoch = compile_epoch(head, optimizer, 4, np.ones(3, np.float32))
    return epoch.get_concrete_function(  # type: ignore[attr-defined]
        tf.TensorSpec((8, 16), tf.float16),
        tf.TensorSpec((8,), tf.int32),
        tf.TensorSpec((8,), tf.int32),
    )


def backbone() -> keras.Model:
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, alpha=0.35, input_shape=(SIZE, SIZE, 3)
    )


def views_of_a_bank() -> Any:
    encoder = ViewEncoder(backbone(), "MobileNetV2", "mixed_bfloat16", has_gpu=True)
    return encoder._pass._encode_views.get_concrete_function()


def features_of_blocks() -> Any:
    encoder = TapEncoder(backbone(), "MobileNetV2", "mixed_bfloat16", has_gpu=True)
    return encoder._pass._encode_views.get_concrete_function()


def top_of_a_backbone() -> tuple[keras.Model, Any]:
    _, above = split_at(fold_backbone(backbone(), keras.config.dtype_policy().name), 13)
    network = build_tuned(above, np.zeros((1280, 3)), np.zeros(3), dropout=0.2)
    recipe = TuningRecipe(epochs=3, batch_size=8)
    return network, finetuning.make_optimizer(network, recipe, 100)


def fine_tuning() -> Any:
    network, optimizer = top_of_a_backbone()
    return finetuning.compile_chunk(network, optimizer, 8).get_concrete_function()  # type: ignore[attr-defined]


def activations_below_a_cut() -> Any:
    policy = keras.config.dtype_policy().name
    encoder = ActivationEncoder(backbone(), "MobileNetV2", 13, policy, has_gpu=True)
    return encoder._pass._encode_views.get_concrete_function()


def averages() -> Any:
    return BatchNormMeasurement(network_of(CONV, 3, seed=0).core)._add.get_concrete_function()


def scoring() -> Any:
    core = network_of(CONV, 3, seed=0).core
    function = tf.function(lambda images: core(images, training=False), autograph=False)
    return function.get_concrete_function(tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8))


FLIPPED = CONV.model_copy(update={"rotation_factor": 0.0})
WHOLE_RECIPE = FLIPPED.model_copy(
    update=dict.fromkeys(
        ("zoom_factor", "shift_factor", "brightness_factor", "contrast_factor"), 0.1
    )
)
STEPS: dict[str, Callable[[], Any]] = {
    "live, adam": lambda: live_step("adam"),
    "live, adamw": lambda: live_step("adamw"),
    "live, sgd": lambda: live_step("sgd"),
    "live, flips alone": lambda: live_step("adam", FLIPPED),
    "live, the whole recipe": lambda: live_step("adamw", WHOLE_RECIPE, RECIPE),
    "live, a global average, half the side": half_step,
    "head": head_epoch,
    "views of a bank": views_of_a_bank,
    "features of blocks": features_of_blocks,
    "activations below a cut": activations_below_a_cut,
    "fine-tuning": fine_tuning,
    "averages": averages,
    "scoring": scoring,
}


@pytest.mark.parametrize(
    ("step", "policy"),
    [(step, "mixed_float16") for step in STEPS]
    + [pytest.param(step, "float32", marks=pytest.mark.slow) for step in STEPS]
    + [("live, adam", "mixed_bfloat16")]
    + [pytest.param("fine-tuning", "mixed_bfloat16", marks=pytest.mark.slow)],
)
def test_a_step_stays_on_the_gpu(step: str, policy: str) -> None:
    with precision(policy):
        faults = gpu_faults(STEPS[step]())
    known = (SEEDS, GLOBAL_AVERAGE) if "global" in step else (SEEDS,)
    assert [fault for fault in faults if not fault.startswith(known)] == []


def test_what_a_gpu_cannot_do_is_found() -> None:
    """Among them what rendering and scoring did: bytes gathered, indices in int32."""

    @tf.function
    def step(pixels: tf.Tensor, places: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, ...]:
        labels = tf.argmax(logits, axis=1, output_type=tf.int32)
        return tf.gather(pixels, tf.cast(places, tf.int32) * 3, batch_dims=1), labels == labels + 1

    pixels, places = tf.TensorSpec((2, 9), tf.uint8), tf.TensorSpec((2, 9), tf.float32)
    faults = gpu_faults(step.get_concrete_function(pixels, places, tf.TensorSpec((2, 3))))
    assert any(fault.startswith("GatherV2") for fault in faults)
    assert any(fault.startswith("Mul(int32, int32) waits for the GPU") for fault in faults)
    assert any(fault.startswith("Equal(int32, int32)") for fault in faults)
