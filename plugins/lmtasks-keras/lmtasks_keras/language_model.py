"""The Keras model that is trained: a layer with the loss of a recipe, and what becomes of its sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


class Mean(keras.metrics.Metric):
    """The loss that sums make: the sum of each term over its number of targets, times its weight, added up.

    Args:
        weights: of each term.
        batches: the mean is of the last step, which so many batches make; None: of all since the epoch began.
    """

    def __init__(self, name: str, weights: tuple[float, ...], batches: int | None = None) -> None:
        super().__init__(name=name)
        self.weight_of_terms, self.batches = weights, batches
        shape = (len(weights),)
        self.sums = self.add_weight(shape=shape, initializer="zeros", dtype="float32", name="sums")
        self.counts = self.add_weight(shape=shape, initializer="zeros", dtype="float32", name="counts")
        self.seen = self.add_weight(shape=(), initializer="zeros", dtype="int32", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the sums and counts of a batch; the first of a step begins anew."""
        begins = self.seen % self.batches == 0 if self.batches else False
        for kept, new in zip((self.sums, self.counts), y_pred, strict=True):
            kept.assign(ops.where(begins, 0.0, ops.convert_to_tensor(kept)) + new)
        self.seen.assign(self.seen + 1)

    def result(self) -> Any:
        """The loss, a scalar."""
        return weighted(self.sums, self.counts, self.weight_of_terms)


def weighted(sums: Any, counts: Any, weights: tuple[float, ...]) -> Any:
    """The sums [terms] over the counts, at least 1, times the weights, added up."""
    return ops.sum(sums / ops.maximum(counts, 1.0) * ops.convert_to_tensor(weights, "float32"))


class LanguageModel(keras.Model):
    """A Keras model whose outputs are the sums and the counts of a batch, see :func:`lmtasks_keras.layer.loss_layer`.

    Where ``fit`` is given targets, [terms], they are what the sums are divided by: the number of targets in the whole
    global batch over the number of batches in it, since Keras takes the mean of their gradients. Without, each batch is
    divided by its own number.

    Args:
        layer: from :func:`lmtasks_keras.layer.loss_layer`.
        terms: the weight of each term of the loss by its name, in order.
        batches: that make an optimiser step, ``gradient_accumulation_steps``.
    """

    def __init__(self, layer: Any, terms: Mapping[str, float], batches: int = 1) -> None:
        super().__init__(dtype="float32")
        self.layer = layer
        self.terms = tuple(terms)
        self.weight_of_terms = tuple(float(weight) for weight in terms.values())
        self.mean = Mean("loss", self.weight_of_terms)
        self.step_mean = Mean("step_loss", self.weight_of_terms, batches)
        self.built = True

    def call(self, inputs: Any, training: Any = False) -> Any:
        """Sums and counts of a batch, both float32 [terms]."""
        return self.layer(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        """The loss of a batch, a scalar, whose gradient is that of its share in the step."""
        counts = y_pred[1] if y is None else ops.reshape(ops.cast(y, "float32"), (len(self.weight_of_terms),))
        return weighted(y_pred[0], counts, self.weight_of_terms)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The losses: the exact mean of the epoch so far, and that of the step, as a whole and of each named term."""
        for metric in (self.mean, self.step_mean):
            metric.update_state(y, y_pred)
        means = self.step_mean.sums / ops.maximum(self.step_mean.counts, 1.0)
        named = {f"step_loss_{name}": means[place] for place, name in enumerate(self.terms) if name}
        return {"loss": self.mean.result(), "step_loss": self.step_mean.result(), **named}
