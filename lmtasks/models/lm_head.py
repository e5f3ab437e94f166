"""The head of a language model, run only where there is a target, and a piece at a time.

The projection to the vocabulary is about half the work of a small model. A masked model needs it for
one token in seven; a causal one needs it everywhere, but never all of its logits at once, the largest
tensor of a step by far. Models have their heads built in, in many shapes, so the model itself is asked:
its forward pass is stopped behind the body, and repeated, without the body, on whichever hidden states
are wanted. That this gives the same logits is measured before training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from lmtasks.api import Batch
from lmtasks.errors import first_line
from lmtasks.models.cross_entropy import ProjectedTotal, Sums, token_sums
from lmtasks.models.forward import in_mode, without_cache

EVERYWHERE = "the head runs on every position"
"""What is told where it cannot be separated, before the reason."""

PIECE = 1 << 23
"""Logits that exist at once; 32 MiB in float32."""


def separate_head(model: PreTrainedModel, inputs: Batch) -> str | None:
    """Teach the model to run its head on its own, if its logits stay the same.

    Its forward pass then takes ``targets``, see :meth:`Head.sums`; everything else is as before. Nothing
    of this is saved with the model.

    Args:
        inputs: an example batch without labels, to compare logits on.

    Returns:
        None, or why it is not possible; the model is then as it was.
    """
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        return "the loss of its router is made with the logits"
    # Some models run only the decoder of what they call their base model (OPT, BART as a causal model), some
    # call nothing so (Llama 4): there, the largest part is it.
    largest = max(model.children(), key=lambda part: sum(one.numel() for one in part.parameters()), default=None)
    candidates = (model.base_model, getattr(model.base_model, "decoder", None), largest)
    bodies = [body for place, body in enumerate(candidates) if body is not model and body not in candidates[:place]]
    reason = "it has no body apart from its head"
    with in_mode(model):
        for body in filter(None, bodies):
            head = Head(model, body)
            try:
                head.learn(inputs)
            except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                head.remove()
                reason = first_line(error)
            else:
                return None
    return reason


def separated(model: torch.nn.Module) -> bool:
    """Whether the model, wrapped for several processes or not, takes ``targets``."""
    return hasattr(getattr(model, "module", model), "lmtasks_head")


class _Stopped(Exception):  # noqa: N818  (it is no error)
    """The forward pass has come to the end of the body."""


class Head:
    """What a model does with hidden states.

    Args:
        model: its forward pass, and that of its body, go through here from now on.
        body: the module in it that makes hidden states.
    """

    def __init__(self, model: PreTrainedModel, body: torch.nn.Module) -> None:
        self.model, self.body = model, body
        self._model_forward, self._body_forward = model.forward, self.body.forward
        self._stop = False
        self._output: Any = None
        self._states: torch.Tensor | None = None
        self._extra = without_cache(model)
        self._scores: torch.Tensor | None = None
        self.last: torch.nn.Linear | None = None
        self._features: torch.Tensor | None = None
        self._stop_at_last = False
        self.vocabulary = 0
        layer = model.get_output_embeddings()
        self._watches: list[RemovableHandle] = []
        if type(layer) is torch.nn.Linear:
            self._watches += [
                layer.register_forward_pre_hook(self._stop_before),
                layer.register_forward_hook(self._see),
            ]
        model.forward = _in_place_of(self._model_forward, self._forward)
        self.body.forward = _in_place_of(self._body_forward, self._through_body)
        model.lmtasks_head = self

    def remove(self) -> None:
        """Leave the model as it was."""
        for module, forward in ((self.model, self._model_forward), (self.body, self._body_forward)):
            del module.forward
            if module.forward != forward:  # it was not the class's own
                module.forward = forward
        del self.model.lmtasks_head
        for watch in self._watches:
            watch.remove()

    def learn(self, inputs: Batch) -> None:
        """Find the head's last layer, and compare its logits with the model's own.

        Raises:
            ValueError: they differ.
        """
        with torch.no_grad():
            expected = self._model_forward(**inputs).logits.flatten(0, 1)
            states = self.hidden(inputs).flatten(0, 1)
            logits = self.logits(states, inputs)
            # The linear layer whose output is the logits, with nothing done to it after.
            if self._scores is not None and torch.equal(self._scores.flatten(0, -2), logits):
                self.last = self.model.get_output_embeddings()
            if logits.shape != expected.shape or not _same(logits, expected):
                raise ValueError("its head gives other logits on its own")
            # Every other position, backwards: a head that looks at neighbours or places would notice.
            if not _same(self.logits(states.flip(0)[::2], inputs), expected.flip(0)[::2]):
                raise ValueError("its head does more than one position at a time")
        self.vocabulary = logits.shape[-1]
        self._output = self._scores = None

    def sums(self, inputs: Batch, targets: torch.Tensor, label_smoothing: float) -> Sums:
        """Sum of the losses, number of targets and, without gradients, number of right guesses.

        Args:
            inputs: what the model takes.
            targets: int64 [examples, length], what the logits at a position should say; -100 is no target.
            label_smoothing: see :func:`lmtasks.token_sums`.
        """
        # A model that fills up its inputs has states of what it added.
        hidden = self.hidden({**inputs, **self._extra})[:, : targets.shape[1]]
        output, self._output = self._output, None
        wanted = targets != -100
        states, labels = hidden[wanted], targets[wanted]
        if torch.is_grad_enabled() and self.last is not None:
            features = self._with(output, self.features, states, inputs)
            total: torch.Tensor = ProjectedTotal.apply(  # type: ignore[no-untyped-call]
                features, labels, self.last.weight, self.last.bias, label_smoothing
            )
            return total, wanted.sum(), {}

        def of_piece(states: torch.Tensor, labels: torch.Tensor) -> Sums:
            return token_sums(self._with(output, self.logits, states, inputs), labels, label_smoothing)

        # On the way back the logits of a piece are made once more: no piece's logits outlive it.
        run = partial(checkpoint, of_piece, use_reentrant=False) if torch.is_grad_enabled() else of_piece
        parts = [run(states[piece], labels[piece]) for piece in self.pieces(len(labels))]
        totals, _, more = zip(*parts, strict=True)
        right = {name: torch.stack([sums[name] for sums in more]).sum() for name in more[0]}
        return torch.stack(totals).sum(), wanted.sum(), right

    def _with(self, output: Any, compute: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
        """What a method computes while the body is taken to have had that output."""
        self._output = output
        try:
            return compute(*arguments)
        finally:
            self._output = self._scores = None

    def pieces(self, count: int) -> Iterator[slice]:
        """So many tokens, as many at a time as may have logits."""
        rows = max(1, PIECE // self.vocabulary)
        return (slice(start, start + rows) for start in range(0, max(count, 1), rows))

    def hidden(self, inputs: Batch) -> torch.Tensor:
        """What the body makes of a batch, [examples, length, size]."""
        self._stop = True
        try:
            self._model_forward(**inputs)
        except _Stopped:
            states: torch.Tensor = self._output["last_hidden_state"]
            return states
        finally:
            self._stop = False
        raise ValueError("it does not run its own body")

    def logits(self, states: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """The logits [tokens, vocabulary] of hidden states [tokens, size]."""
        self._states = states[None]
        try:
            logits: torch.Tensor = self._model_forward(**inputs).logits[0]
            return logits
        finally:
            self._states = None

    def features(self, states: torch.Tensor, inputs: Batch) -> torch.Tensor:
        """What the last layer is given of hidden states [tokens, size], [tokens, size or another]."""
        self._states, self._stop_at_last = states[None], True
        try:
            self._model_forward(**inputs)
        except _Stopped:
            assert self._features is not None  # it is what the exception is raised for
            return self._features.flatten(0, -2)
        finally:
            self._states, self._stop_at_last, self._features = None, False, None
        raise ValueError("its last layer was not used")

    def _stop_before(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if self._stop_at_last:
            self._features = inputs[0]
            raise _Stopped

    def _see(self, layer: torch.nn.Module, inputs: tuple[torch.Tensor], scores: torch.Tensor) -> None:
        if self._states is not None:
            self._scores = scores

    def _forward(self, *arguments: Any, **inputs: Any) -> Any:
        if "targets" not in inputs:
            return self._model_forward(*arguments, **inputs)
        return self.sums(inputs, inputs.pop("targets"), inputs.pop("label_smoothing", 0.0))

    def _through_body(self, *arguments: Any, **inputs: Any) -> Any:
        if self._states is not None:
            return type(self._output)(**{**self._output, "last_hidden_state": self._states})
        output = self._body_forward(*arguments, **inputs)
        if self._stop:
            self._output = output
            raise _Stopped
        return output


def _in_place_of(method: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    """The replacement with the signature of the method, which others look at."""

    @functools.wraps(method)
    def forward(*arguments: Any, **inputs: Any) -> Any:
        return replacement(*arguments, **inputs)

    return forward


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether logits are equal but for the rounding of another shape."""
    return torch.allclose(one.float(), other.float(), rtol=1e-3, atol=1e-4 * float(other.float().std()))
