"""The loss of a recipe as a Keras layer, whatever backend Keras has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch

from lmtasks.api import Recipe
from lmtasks_keras.batches import Shapes
from lmtasks_keras.static import RecipeLoss, without_head
from lmtasks_keras.tracing import traced


def loss_layer(model: torch.nn.Module, recipe: Recipe, shapes: Shapes, label_smoothing: float = 0.0) -> Any:
    """A Keras layer with the parameters of a transformers model, which computes the loss of a recipe.

    Called with a batch it gives the sum of each term of the loss and its number of targets, both float32 [terms].

    Args:
        model: on the CPU, in float32. On the torch backend the layer has its very parameters, elsewhere copies.
        recipe: with its options.
        shapes: of what the layer will be called with, see :func:`lmtasks_keras.batches.constant`.
        label_smoothing: as :func:`lmtasks.token_sums` takes it.

    Raises:
        ImportError: the backend is JAX or TensorFlow, and torchax or JAX is not installed.
    """
    loss = RecipeLoss(without_head(model), recipe, label_smoothing)
    return (TorchLoss if keras.backend.backend() == "torch" else TracedLoss)(loss, shapes)


class _Named:
    """What both kinds of layer have: weights with the names that they have in the model."""

    named: dict[str, Any]
    """The trained weights, a Keras variable for each name of ``model.named_parameters()``."""

    def copy_to(self, model: torch.nn.Module) -> None:
        """Write the trained weights into a model that has parameters of the same names."""
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, variable in self.named.items():
                # Keras' array may not be writable, and torch has no other.
                parameters[name].copy_(torch.from_numpy(np.array(keras.ops.convert_to_numpy(variable))))


class TracedLoss(_Named, keras.layers.JaxLayer):
    """The layer on the JAX and TensorFlow backends: torch's operators, traced into JAX."""

    def __init__(self, loss: RecipeLoss, shapes: Shapes) -> None:
        parameters, function = traced(loss)

        def call(params: Any, inputs: Any, rng: Any, training: Any) -> Any:
            return function(params, inputs, rng, training)

        super().__init__(call, params=parameters, seed=0, dtype="float32")
        self.shapes = dict(shapes)
        self.named = {name.removeprefix(loss.PREFIX): weight for name, weight in self.params.items()}
        self.build(self.shapes)

    def call(self, inputs: Any, training: Any = False) -> Any:
        """Sums and counts, both [terms]; the shapes are said again, because TensorFlow forgets them on the way."""
        known = {name: keras.ops.reshape(inputs[name], shape) for name, shape in self.shapes.items()}
        return super().call(known, training=training)

    def draw_from(self, seed: int, calls: int) -> None:
        """Let dropout be drawn from a seed, as after so many calls in training."""
        self.seed_generator.state.assign(np.asarray([seed % 2**31, calls], dtype=np.uint32))

    def _get_jax2tf_input_shape(self, input_shape: Any) -> None:
        """None: no dimension is open, and for dictionaries with open ones Keras 3.15 says what JAX does not take."""

    def _get_call_seed(self) -> Any:
        """The seed of a call.

        On TensorFlow, Keras 3.15 gives JAX only its first number, which stays: every step would drop the same.
        """
        seed = super()._get_call_seed()
        if keras.backend.backend() == "jax":
            return seed
        mixed = keras.ops.bitwise_xor(seed[0], seed[1] * keras.ops.convert_to_tensor(_GOLDEN, seed.dtype))
        return keras.ops.stack([mixed, seed[1]])


_GOLDEN = 0x9E3779B9
"""2³² over the golden ratio: multiplied by it, numbers that follow one another lie far apart (Knuth, section 6.4)."""


class TorchLoss(_Named, keras.layers.TorchModuleWrapper):
    """The layer on the torch backend: the module itself."""

    def __init__(self, loss: RecipeLoss, shapes: Shapes) -> None:
        super().__init__(loss, dtype="float32")
        self.shapes = dict(shapes)
        # By identity: Keras has those that are trained first, whatever their place in the module.
        of = {id(weight.value): weight for weight in self.weights}
        trained = {name: one for name, one in loss.named_parameters() if one.requires_grad}
        self.named = {name.removeprefix(loss.PREFIX): of[id(one)] for name, one in trained.items()}
        self.draw_from(0, 0)

    def draw_from(self, seed: int, calls: int) -> None:
        """Let dropout be drawn from a seed, as after so many calls in training."""
        self.seed, self.calls = seed, calls

    def call(self, inputs: Any, training: Any = False) -> Any:
        """Sums and counts, both [terms]; ids are int64 here, as torch wants labels."""
        whole = {name: value.long() if value.dtype == torch.int32 else value for name, value in inputs.items()}
        if not training:
            return super().call(whole, training=False)
        self._begin_call()
        return super().call(whole, training=True)

    @torch.compiler.disable
    def _begin_call(self) -> None:
        """Seed by the number of the call, as JAX has it: a run that goes on draws what it would have drawn.

        Compiled with the rest, it would be compiled anew for every number.
        """
        torch.manual_seed((self.seed + self.calls * _GOLDEN) % 2**63)
        self.calls += 1
