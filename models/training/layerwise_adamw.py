"""AdamW as fine-tuning needs it: a rate for each depth, no decay of biases, a schedule.

Decoupled weight decay: Loshchilov and Hutter, ICLR 2019 (arXiv:1711.05101). Rates that fall
towards the input: Howard and Ruder, ACL 2018 (arXiv:1801.06146), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from pawtune.models.training.fused_optimizers import FusedAdam, LearningRate


class LayerwiseAdamW(FusedAdam):
    """Adam whose rate and decay are multiplied by a factor for each weight."""

    def __init__(
        self, learning_rate: LearningRate, weight_decay: float, factors: Sequence[float]
    ) -> None:
        """Make an optimizer for a model's trainable weights.

        Args:
            learning_rate: of a weight with factor 1.
            weight_decay: part of a weight that a step takes away, times its rate; biases and other
                vectors keep theirs.
            factors: of the rate, one for each trainable weight in the model's order.
        """
        super().__init__(learning_rate, name="layerwise_adamw")
        self._decay = weight_decay
        self._factors = tuple(factors)

    def update(
        self, number: int, gradient: tf.Tensor, variable: keras.Variable, rate: tf.Tensor
    ) -> None:
        """Decay the weight of a number if it is no vector, then update it."""
        rate = rate * self._factors[number]
        if self._decay and len(variable.shape) > 1:
            variable.assign_sub(rate * self._decay * variable)
        super().update(number, gradient, variable, rate)


def warmup_cosine(
    peak: float, steps: int, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A rate that rises from 0 to its peak in the first steps and falls to 0 by the last.

    Cosine: Loshchilov and Hutter, ICLR 2017 (arXiv:1608.03983).
    """
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup_steps, 1), warmup_target=peak, warmup_steps=warmup_steps
    )
