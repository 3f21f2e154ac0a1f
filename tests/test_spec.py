"""Specs: the tutorial's table, rules and their messages, arithmetic by hand, JSON and back."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pawtune.models.baselines import BASELINES, baseline
from pawtune.models.errors import ModelError
from pawtune.models.families.conv import CONV, ConvSpec, block_sizes
from pawtune.models.families.table import check_limits
from pawtune.models.families.transfer import TransferSpec
from pawtune.models.model_spec import TrainSpec
from pawtune.models.spec import TrialSpec, explain


@pytest.mark.parametrize(("epochs", "half"), [(20, 10), (14, 10), (11, 10), (6, 5), (1, 0)])
def test_fewer_epochs_are_as_many_on_half_the_side(epochs: int, half: int) -> None:
    """So a refit has the epochs that were best, not more of the dear ones."""
    shorter = TrainSpec(epochs=20, half_size_share=0.5).over(epochs)
    assert (shorter.epochs, shorter.half_size_epochs) == (epochs, half)
    assert TrainSpec(epochs=20).over(epochs) == TrainSpec(epochs=epochs)


def test_baselines_are_the_tutorials_models() -> None:
    assert tuple(BASELINES) == tuple(f"tutorial_{number}" for number in range(1, 6))
    rows = {
        name: [trial.params().get(key) for key in ("scaling", "filters", "backbone", "dense_width")]
        for name, trial in BASELINES.items()
    }
    assert rows == {
        "tutorial_1": ["none", "32-32", None, 0],
        "tutorial_2": ["none", "32-32", None, 64],
        "tutorial_3": ["minus_one_to_one", "32-32-64", None, 128],
        "tutorial_4": [None, None, "MobileNetV2", 0],
        "tutorial_5": [None, None, "MobileNetV2", 128],
    }
    for number, trial in enumerate(BASELINES.values(), start=1):
        params = trial.params()
        augmentation = ("none", 0.0) if number == 1 else ("horizontal_and_vertical", 0.9)
        assert (params["flip"], params["rotation_factor"]) == augmentation
        assert (params["image_size"], params["dropout"]) == (160, 0.2)
        assert (params["batch_size"], params["optimizer"]) == (32, "adam")
        assert params["learning_rate"] == 1e-3
        assert params["pooling"] == ("flatten" if number < 4 else "max")
        assert trial.train.epochs == 20


def test_baseline_takes_epochs_and_seed() -> None:
    trial = baseline("tutorial_3", epochs=7, seed=4)
    assert (trial.train.epochs, trial.train.seed) == (7, 4)
    assert trial.model == BASELINES["tutorial_3"].model


def test_misspelt_baseline_gets_a_suggestion() -> None:
    with pytest.raises(ModelError, match=r"received 'Tutorial3'; did you mean 'tutorial_3'\?$"):
        baseline("Tutorial3")


def test_baseline_checks_epochs() -> None:
    with pytest.raises(ValidationError) as caught:
        baseline("tutorial_1", epochs=0)
    assert explain(caught.value).endswith("received 0; give 1 epoch or more")


def test_params_are_flat_and_name_class_weights_only_where_set() -> None:
    spec = TrialSpec(name="t", model=ConvSpec(filters=(8, 16, 32)))
    params = spec.params()
    assert params["conv_depth"] == 3
    assert params["filters"] == "8-16-32"
    assert {type(value) for value in params.values()} <= {str, int, float, bool}
    assert not {"class_weights", "epochs", "seed", "precision", "name"} & set(params)
    weighted = spec.model_copy(update={"train": TrainSpec(class_weights=True)})
    assert weighted.params()["class_weights"] is True


conv_specs: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    family=st.just("conv"),
    image_size=st.integers(32, 256),
    filters=st.lists(st.integers(4, 64), min_size=1, max_size=5),
    kernel_size=st.integers(1, 7),
    padding=st.sampled_from(["valid", "same"]),
    batch_norm=st.booleans(),
    pooling=st.sampled_from(["flatten", "global_average"]),
    dense_width=st.integers(0, 512),
    dropout=st.floats(0, 0.9),
    rotation_factor=st.floats(0, 1),
)


@given(conv_specs)
def test_a_spec_keeps_an_image_or_is_refused_and_survives_json(values: dict[str, Any]) -> None:
    try:
        model = ConvSpec(**values)
    except ValidationError as error:
        refusal = explain(error)
    else:
        refusal = ""
        assert min(block_sizes(model)) >= 1
        trial = TrialSpec(name="t", model=model)
        assert TrialSpec.model_validate_json(trial.model_dump_json()) == trial
    assert not refusal or "shrinks to" in refusal


def test_block_sizes_by_hand() -> None:
    assert block_sizes(ConvSpec(filters=(32, 32, 64))) == (79, 38, 18)
    assert block_sizes(ConvSpec(filters=(8, 8), padding="same", image_size=50)) == (25, 12)
    assert block_sizes(ConvSpec(filters=(8,), kernel_size=7, image_size=33)) == (13,)


def test_counts_by_hand() -> None:
    # 3x3x3x32+32, 3x3x32x32+32, 38x38x32 inputs to 2 logits
    assert CONV.price(ConvSpec(filters=(32, 32)), 2).weights == 896 + 9248 + (38 * 38 * 32 + 1) * 2
    # no bias under batch norm, but four numbers a channel; 16x16x4 inputs, 10 units, 3 logits
    small = ConvSpec(
        filters=(4,), image_size=32, padding="same", batch_norm=True, dense_width=10, kernel_size=1
    )
    assert CONV.price(small, 3).weights == 3 * 4 + 4 * 4 + (16 * 16 * 4 + 1) * 10 + 11 * 3
    assert CONV.price(small, 3).multiply_adds == 32 * 32 * 3 * 4 + 16 * 16 * 4 * 10 + 10 * 3
    average = ConvSpec(filters=(4,), image_size=34, pooling="global_average")
    assert CONV.price(average, 2).multiply_adds == 32 * 32 * 9 * 3 * 4 + 4 * 2


def test_limits_refuse_what_is_too_large_or_too_slow() -> None:
    for trial in BASELINES.values():
        check_limits(trial.model, 2)
    # 76x76x256 inputs to 64 units
    large = ConvSpec(filters=(32, 256), kernel_size=5, dense_width=64)
    with pytest.raises(ModelError, match=r"at most 20,000,000 weights, this one has 22,\d+,\d+: "):
        check_limits(large, 2)
    slow = ConvSpec(filters=(256, 256), pooling="global_average")
    with pytest.raises(ModelError, match=r"multiply-adds of tutorial_3 .* costs 35\.7 times: "):
        check_limits(slow, 2)


def messages(make: Callable[[], object]) -> str:
    with pytest.raises(ValidationError) as caught:
        make()
    text = explain(caught.value)
    assert "\n" not in text
    return text


def test_a_refused_value_is_told_with_rule_value_and_remedy() -> None:
    assert messages(lambda: ConvSpec(filters=(8,), dropout=1.3)) == (
        "dropout: should be less than or equal to 0.9, received 1.3; give a number from 0 to 0.9"
    )
    assert messages(lambda: TrainSpec(learning_rate=float("nan"))) == (
        "learning_rate: should be a finite number, received nan; give a number above 0"
    )
    assert messages(lambda: ConvSpec(filters=(8, 2))) == (
        "filters.1: should be greater than or equal to 4, received 2; "
        "give 1 to 5 widths, one for each block"
    )
    assert "received 6; give" not in messages(lambda: ConvSpec(filters=()))


def test_all_errors_are_told_at_once() -> None:
    values = {"name": "t", "model": {"family": "conv", "drpout": 0.1}, "train": {"optimizer": "x"}}
    assert messages(lambda: TrialSpec.model_validate(values)).split("; ") == [
        "model.filters: filters is required, but missing",
        "give 1 to 5 widths, one for each block",
        "model.drpout: no such setting",
        "did you mean 'dropout'?",
        "train.optimizer: should be 'adam', 'adamw' or 'sgd', received 'x'",
        "give adam, adamw or sgd",
    ]


def test_families_are_told() -> None:
    wrong = {"name": "t", "model": {"family": "cov"}}
    assert messages(lambda: TrialSpec.model_validate(wrong)) == (
        "model: family must be conv or transfer or finetune, received 'cov'; did you mean 'conv'?"
    )
    none = {"name": "t", "model": {"dropout": 0.1}}
    assert messages(lambda: TrialSpec.model_validate(none)) == (
        "model: family is required, but missing; give family conv or transfer or finetune"
    )


def test_an_image_that_shrinks_to_nothing_is_refused() -> None:
    text = messages(lambda: ConvSpec(filters=(8,) * 5, image_size=32))
    assert "32 px shrinks to 15, 6, 2, 0, 0 px over 5 blocks" in text
    assert text.endswith("give fewer blocks, padding 'same' or a larger image_size")


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TransferSpec().dropout = 0.5  # type: ignore[misc]
