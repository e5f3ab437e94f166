"""The head of a language model, run only where there is a target, and a piece at a time.

The projection to the vocabulary is about half the work of a small model. A masked model needs it for
one token in seven; a causal one needs it everywhere, but never all of its logits at once, the largest
tensor of a step by far. Models have their heads built in, in many shapes, so the model itself is asked:
its forward pass is stopped behind the body, and repeated, without the body, on whichever hidden states
are wanted. That this gives the same logits is measured before training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial, wraps
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lmtasks.api import Batch, Sums, token_sums, unwrapped
from lmtasks.errors import first_line
from lmtasks.models.agreement import agree
from lmtasks.models.cross_entropy import likelihoods, plain_likelihoods, projected_total
from lmtasks.models.forward import MODEL_FAILURES, in_mode, repeated, without_cache
from lmtasks.models.last_layer import Parts, missing_rows, only, row_wise_parts
from lmtasks.models.tied_weight import one_gradient, tied_embedding

EVERYWHERE = "the head runs on every position"
"""Note where it cannot be separated, before the reason."""

PIECE = 1 << 23
"""Logits that exist at once; 32 MiB in float32."""


def separate_head(model: PreTrainedModel, inputs: Batch) -> str | None:
    """Teach the model to run its head on its own, if its logits for a batch without labels stay the same.

    Its forward pass then takes ``targets``, see :meth:`Head.sums`; everything else is as before. Nothing
    of this is saved with the model.

    Returns:
        None, or why it is not possible; the model is then as it was.
    """
    if getattr(model.config.get_text_config(), "output_router_logits", False):
        return "the loss of its router is made with the logits"
    # Some models run only the decoder of what they call their base model (OPT, BART as a causal model), some
    # call nothing so (Llama 4): there, the largest part is it.
    largest = max(model.children(), key=lambda part: sum(one.numel() for one in part.parameters()), default=None)
    candidates = (model.base_model, getattr(model.base_model, "decoder", None), largest)
    bodies = dict.fromkeys(body for body in candidates if body not in (model, None))
    reason = "it has no body apart from its head"
    with in_mode(model), torch.no_grad():
        for body in bodies:
            head = Head(model, body)
            try:
                head.learn(inputs)
                head.learn_last_layer(inputs)
                return None
            except MODEL_FAILURES as error:
                head.remove()
                reason = first_line(error)
    return reason


def separated(model: torch.nn.Module) -> bool:
    """Whether the model, wrapped for several processes or not, takes ``targets``."""
    return hasattr(unwrapped(model), "lmtasks_head")


@contextmanager
def whole(model: torch.nn.Module) -> Iterator[None]:
    """While this is open the model's head runs on every position, as that of a model nobody has separated."""
    parts = vars(unwrapped(model))
    head = parts.pop("lmtasks_head", None)
    try:
        yield
    finally:
        if head is not None:
            parts["lmtasks_head"] = head


class _Stopped(Exception):  # noqa: N818  (it is no error)
    """The forward pass has come as far as it is needed."""


class Head:
    """The work of a model on the hidden states of its body; the forward pass of both goes through here from now on."""

    def __init__(self, model: PreTrainedModel, body: torch.nn.Module) -> None:
        self.model, self.body = model, body
        self._model_forward, self._body_forward = model.forward, self.body.forward
        self._extra = without_cache(model)
        self._trained_body: Callable[..., Any] | None = None
        self._parts: Parts = {}
        self._run_body: Callable[..., Any] = self._body_forward
        self._output: Any = None
        self.last: torch.nn.Linear | None = None
        self.vocabulary = 0
        model.forward = _in_place_of(self._model_forward, self._forward)
        self.body.forward = _in_place_of(self._body_forward, lambda *given, **more: self._run_body(*given, **more))
        model.lmtasks_head = self

    def remove(self) -> None:
        """Leave the model as it was."""
        for module, forward in ((self.model, self._model_forward), (self.body, self._body_forward)):
            del module.forward
            if module.forward != forward:  # it was not the class's own
                module.forward = forward
        del self.model.lmtasks_head

    def compile_body(self, compile: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let the body run compiled wherever there are targets and gradients; everything else is as it was."""
        self._trained_body = compile(self._body_forward)

    def learn(self, inputs: Batch) -> None:
        """Find the head's last layer, and raise a ValueError if its logits are not the model's own."""
        layer, scores = self.model.get_output_embeddings(), []
        plain = type(layer) is torch.nn.Linear
        expected = self._model_forward(**inputs).logits.flatten(0, 1)
        states = self.hidden(inputs).flatten(0, 1)
        with layer.register_forward_hook(lambda *seen: scores.append(seen[-1])) if plain else nullcontext():
            logits = self.logits(states, inputs)
        # The linear layer whose output is the logits, with nothing done to it after, be it a bias of zeros.
        if scores and scores[-1].data_ptr() == logits.data_ptr() and not scores[-1]._version:
            self.last = layer
        if not agree(logits, expected, spread=1e-4):
            raise ValueError("its head gives other logits on its own")
        # Every other position, backwards: a head that looks at neighbours or places would notice.
        if not agree(self.logits(states.flip(0)[::2], inputs), expected.flip(0)[::2], spread=1e-4):
            raise ValueError("its head does more than one position at a time")
        self.vocabulary = logits.shape[-1]
        self._output = None

    def learn_last_layer(self, inputs: Batch) -> None:
        """Find what of the body's last layer may run on a few rows, with the same logits there."""
        several = {**repeated(inputs, 2), **self._extra}
        with suppress(*MODEL_FAILURES):
            hidden, logits = partial(self.hidden, several), partial(self.logits, inputs=several)
            self._parts = row_wise_parts(self.body, hidden, logits)
        self._output = None

    def sums(
        self, inputs: Batch, targets: torch.Tensor, label_smoothing: float, weights: torch.Tensor | None = None
    ) -> Sums:
        """Sum of the losses, number of targets and, without gradients, number of right guesses.

        The arguments are those of :func:`lmtasks.target_sums`.
        """
        with self._weight() as weight:
            wanted = targets != -100
            # A model that fills up its inputs has states of what it added.
            hidden = self.hidden({**inputs, **self._extra}, wanted)[:, : targets.shape[1]]
        output, self._output = self._output, None
        states, labels = hidden[wanted], targets[wanted]
        weights = None if weights is None else weights[wanted]
        if not torch.is_grad_enabled():
            told, right = self.likelihoods(states, labels, inputs, output)
            exact = -told.cpu().double()  # see token_sums
            return (exact if weights is None else exact * weights.cpu()).sum(), wanted.sum(), {"correct": right.sum()}
        states, labels, weights = _filled(states, labels, weights)
        if self.last is not None and weight is not None:
            features = self._features(self.last, states, inputs, output)
            total = projected_total(features, labels, weight, self.last.bias, label_smoothing, weights)
            return total, wanted.sum(), {}

        def of_piece(piece: slice) -> torch.Tensor:
            scales = None if weights is None else weights[piece]
            return token_sums(self.logits(states[piece], inputs, output), labels[piece], label_smoothing, scales)[0]

        # On the way back the logits of a piece are made once more: no piece's logits outlive it.
        totals = [checkpoint(of_piece, piece, use_reentrant=False) for piece in self._pieces(len(labels))]
        return torch.stack(totals).sum(), wanted.sum(), {}

    @torch.no_grad()
    def likelihoods(
        self, states: torch.Tensor, labels: torch.Tensor, inputs: Batch, output: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log p of labels [tokens] in nats, float32, and whether each is the best guess, without gradients.

        Args:
            states: hidden states [tokens, size] that tell them.
            output: as for :meth:`logits`.
        """
        if self.last is not None:
            features = self._features(self.last, states, inputs, output)
            return likelihoods(features, labels, self.last.weight, self.last.bias)
        parts = [
            plain_likelihoods(self.logits(states[one], inputs, output), labels[one])
            for one in self._pieces(len(labels))
        ]
        told, right = (torch.cat(part) for part in zip(*parts, strict=True))
        return told, right

    def _pieces(self, count: int) -> list[slice]:
        """Parts of so many tokens whose logits may exist at once; one at least."""
        rows = max(1, PIECE // self.vocabulary)
        return [slice(start, start + rows) for start in range(0, max(count, 1), rows)]

    def hidden(self, inputs: Batch, wanted: torch.Tensor | None = None) -> torch.Tensor:
        """The hidden states of a batch, [examples, length, size].

        Args:
            wanted: bool [examples, length], the positions whose states are read; all when not given.
        """
        compiled = self._trained_body if torch.is_grad_enabled() else None
        run = compiled or self._body_forward
        # What is compiled, or done once more on the way back, has all rows.
        parts = {} if compiled or (torch.is_grad_enabled() and _is_repeated(self.model)) else self._parts

        def stop(*arguments: Any, **inputs: Any) -> None:
            with only(parts, wanted, self.model.dtype):
                self._output = run(*arguments, **inputs)
            raise _Stopped

        with suppress(_Stopped):
            self._with_body(stop, inputs)
            raise ValueError("it does not run its own body")
        states: torch.Tensor = self._output["last_hidden_state"]
        return states

    def logits(self, states: torch.Tensor, inputs: Batch, output: Any = None) -> torch.Tensor:
        """The logits [tokens, vocabulary] of hidden states [tokens, size].

        Args:
            output: all that the body made of the inputs; what it made last when not given.
        """
        output = self._output if output is None else output
        given = type(output)(**{**output, "last_hidden_state": states[None]})
        logits: torch.Tensor = self._with_body(lambda *arguments, **inputs: given, inputs).logits[0]
        return logits

    def _weight(self) -> AbstractContextManager[torch.Tensor | None]:
        """The weight of the last layer, for as long as the body runs; in training it may be the embedding's, too."""
        weight = None if self.last is None else self.last.weight
        if weight is None or not (torch.is_grad_enabled() and weight.requires_grad):
            return nullcontext(weight)
        # On a GPU rows that are added to at once come in any order, and a compiled body has an embedding of its own.
        plain = weight.device.type == "cpu" and self._trained_body is None
        embedding = tied_embedding(self.model, weight) if plain else None
        return nullcontext(weight) if embedding is None else one_gradient(embedding)

    def _with_body(self, run: Callable[..., Any], inputs: Batch) -> Any:
        """The model's outputs with something else in place of its body."""
        self._run_body = run
        try:
            return self._model_forward(**inputs)
        finally:
            self._run_body = self._body_forward

    def _features(self, last: torch.nn.Linear, states: torch.Tensor, inputs: Batch, output: Any) -> torch.Tensor:
        """The inputs [tokens, size or another] of the last layer, of hidden states [tokens, size]."""
        features: list[torch.Tensor] = []

        def stop(layer: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
            features.append(given[0].flatten(0, -2))
            raise _Stopped

        with last.register_forward_pre_hook(stop), suppress(_Stopped):
            self.logits(states, inputs, output)
        if not features:
            raise ValueError("its last layer was not used")
        return features[0]

    def _forward(self, *arguments: Any, **inputs: Any) -> Any:
        if arguments and arguments[0] is self.model:  # accelerate binds what it unwraps, which was no method
            arguments = arguments[1:]
        if "targets" not in inputs:
            return self._model_forward(*arguments, **inputs)
        asked = {"label_smoothing": 0.0, "weights": None}
        targets, how = inputs.pop("targets"), {name: inputs.pop(name, usual) for name, usual in asked.items()}
        return self.sums(inputs, targets, **how)


def _filled(
    states: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The targets with more rows, of no weight, as many as are missing for products."""
    missing, pad = missing_rows(len(labels), states.device, states.dtype), torch.nn.functional.pad
    if not missing:
        return states, labels, weights
    weights = torch.ones(len(labels)) if weights is None else weights
    return pad(states, (0, 0, 0, missing)), pad(labels, (0, missing)), pad(weights, (0, missing))


def _is_repeated(model: torch.nn.Module) -> bool:
    """Whether some of the forward pass is done once more for the gradient."""
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def _in_place_of(method: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
    """The replacement with the signature of the method, which others look at."""

    @wraps(method)
    def forward(*arguments: Any, **inputs: Any) -> Any:
        return replacement(*arguments, **inputs)

    return forward
