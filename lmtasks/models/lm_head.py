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
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, log_softmax
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from lmtasks.api import Batch
from lmtasks.errors import first_line
from lmtasks.models.chunked_cross_entropy import ProjectedTotal
from lmtasks.models.forward import in_mode, without_cache

EVERYWHERE = "the head runs on every position"
"""What is told where it cannot be separated, before the reason."""

PIECE = 1 << 23
"""Logits that exist at once; 32 MiB in float32."""

_ROWS = 1 << 13
"""Rows of the projection whose gradient is made at once."""

Sums = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


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
        self.parameters: list[torch.nn.Parameter] = []
        self.projection: torch.nn.Linear | None = None
        self.projected: tuple[torch.Tensor, torch.Tensor] | None = None
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
        """Find the head's parameters, and compare its logits with the model's own.

        Raises:
            ValueError: they differ.
        """
        with torch.enable_grad():
            plain = self._model_forward(**inputs).logits.detach()
            states = self.hidden(inputs).detach().flatten(0, 1)
            logits = self.logits(states, inputs)
            self.last = self._last_layer(logits)
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.parameters = _used(logits, trained)
            self.projection = self._plain_projection(logits)
        expected = plain.flatten(0, 1)
        if logits.shape != expected.shape or not _same(logits, expected):
            raise ValueError("its head gives other logits on its own")
        with torch.no_grad():
            # Every other position, backwards: a head that looks at neighbours or places would notice.
            if not _same(self.logits(states.flip(0)[::2], inputs), expected.flip(0)[::2]):
                raise ValueError("its head does more than one position at a time")
        self.vocabulary = logits.shape[-1]
        self._output = self.projected = None

    def _last_layer(self, logits: torch.Tensor) -> torch.nn.Linear | None:
        """The linear layer whose output is the logits, with nothing done to it after."""
        if self.projected is None or not torch.equal(self.projected[1].flatten(0, -2), logits):
            return None
        layer: torch.nn.Linear = self.model.get_output_embeddings()
        return layer

    def _plain_projection(self, logits: torch.Tensor) -> torch.nn.Linear | None:
        """The last layer, if its weight is used there and nowhere else in the head.

        Then its gradient, as large as all logits of a small batch, can be made in place. Taken from the
        parameters for which autograd is asked.
        """
        layer: torch.nn.Linear = self.model.get_output_embeddings()
        if self.projected is None or not any(one is layer.weight for one in self.parameters):
            return None
        states, scores = self.projected
        own, slope = torch.autograd.grad(logits.square().sum(), [layer.weight, scores])
        if not _same(slope.flatten(0, -2).t() @ states.detach().flatten(0, -2), own):
            return None
        of_layer = list(layer.parameters())
        self.parameters = [one for one in self.parameters if all(one is not other for other in of_layer)]
        return layer

    def sums(self, inputs: Batch, targets: torch.Tensor, label_smoothing: float) -> Sums:
        """Sum of the losses, number of targets and, without gradients, number of right guesses.

        Args:
            inputs: what the model takes.
            targets: int64 [examples, length], what the logits at a position should say; -100 is no target.
            label_smoothing: see :func:`lmtasks.token_sums`.
        """
        # A model that fills up its inputs has states of what it added.
        hidden = self.hidden({**inputs, **self._extra})[:, : targets.shape[1]]
        wanted = targets != -100
        states, labels = hidden[wanted], targets[wanted]
        try:
            if torch.is_grad_enabled() and self.last is not None:
                features = self.features(states, inputs)
                whole: torch.Tensor = ProjectedTotal.apply(  # type: ignore[no-untyped-call]
                    features, labels, self.last.weight, self.last.bias, label_smoothing
                )
                return whole, wanted.sum(), {}
            if torch.is_grad_enabled():
                layer = [self.projection.weight, self.projection.bias] if self.projection else [None, None]
                total: torch.Tensor = _Total.apply(  # type: ignore[no-untyped-call]
                    states, labels, self, inputs, label_smoothing, *layer, *self.parameters
                )
                return total, wanted.sum(), {}
            return self._figures(states, labels, inputs)
        finally:
            self._output = self.projected = None

    def _figures(self, states: torch.Tensor, labels: torch.Tensor, inputs: Batch) -> Sums:
        total = torch.zeros((), dtype=torch.float64)
        correct = torch.zeros((), dtype=torch.int64, device=labels.device)
        for piece in self.pieces(len(labels)):
            logits = self.logits(states[piece], inputs).float()
            total += cross_entropy(logits, labels[piece], reduction="none").cpu().double().sum()
            correct += (logits.argmax(-1) == labels[piece]).sum()
        return total, torch.tensor(len(labels), device=labels.device), {"correct": correct}

    def pieces(self, count: int) -> Iterator[slice]:
        """So many tokens, as many at a time as may have logits."""
        rows = max(1, PIECE // self.vocabulary)
        return (slice(start, start + rows) for start in range(0, count, rows))

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
            self.projected = inputs[0], scores

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


def _used(logits: torch.Tensor, trained: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Those of the parameters that the logits come from."""
    if not logits.requires_grad:
        return []
    gradients = torch.autograd.grad(logits.sum(), trained, retain_graph=True, allow_unused=True)
    return [parameter for parameter, gradient in zip(trained, gradients, strict=True) if gradient is not None]


class _Total(torch.autograd.Function):
    """Sum of the cross-entropies of hidden states, whose gradients are made right away, piece by piece.

    So no piece's logits outlive it. Liger's and other fused kernels do the same on GPUs; here the head
    may be anything, and runs where the model does.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        labels: torch.Tensor,
        head: Head,
        inputs: Batch,
        label_smoothing: float,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        """The sum in float32.

        Args:
            states: [tokens, size].
            labels: int64 [tokens].
            inputs: what the model was called with.
            weight, bias: of the head's projection, if its gradient is made here.
            parameters: of the rest of the head.
        """
        total = torch.zeros((), device=states.device)
        # Filling what the first piece overwrites would take as long as a good part of its products.
        make = torch.empty_like if len(labels) else torch.zeros_like
        pulls = [make(one) for one in (states, *parameters)]
        of_layer = [make(one) if one is not None else None for one in (weight, bias)]
        for piece in head.pieces(len(labels)):
            add = torch.Tensor.add_ if piece.start else torch.Tensor.copy_
            part = states[piece].detach().requires_grad_()
            with torch.enable_grad():
                logits = head.logits(part, inputs)
            loss, slope = _slope(logits.detach(), labels[piece], label_smoothing)
            total += loss
            watched = [] if weight is None or head.projected is None else [head.projected[1]]
            gradients = torch.autograd.grad(logits, [part, *parameters, *watched], slope)
            if watched and head.projected is not None:
                _add_projection(add, of_layer, gradients[-1][0], head.projected[0].detach()[0])
            del logits, slope
            pulls[0][piece] = gradients[0]
            for pull, gradient in zip(pulls[1:], gradients[1:], strict=False):
                add(pull, gradient)
        ctx.save_for_backward(*pulls, *of_layer)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        """The gradients, scaled in place: there is no second time."""
        *pulls, weight, bias = (None if pull is None else pull.mul_(upstream) for pull in ctx.saved_tensors)
        return pulls[0], None, None, None, None, weight, bias, *pulls[1:]


def _add_projection(
    add: Callable[[torch.Tensor, torch.Tensor], object],
    of_layer: list[torch.Tensor | None],
    slope: torch.Tensor,
    states: torch.Tensor,
) -> None:
    """Add what a piece pulls at weight and bias, some rows at a time.

    Args:
        add: to what is there, or in place of it.
        of_layer: the sums so far, [vocabulary, size] and [vocabulary].
        slope: gradient of the scores, [tokens, vocabulary].
        states: what was projected, [tokens, size].
    """
    weight, bias = of_layer
    states = states.to(slope.dtype)
    if weight is not None:
        for start in range(0, len(weight), _ROWS):
            add(weight[start : start + _ROWS], slope[:, start : start + _ROWS].t() @ states)
    if bias is not None:
        add(bias, slope.sum(0))


def _slope(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the cross-entropies, and the gradient of the smoothed ones with respect to the logits."""
    likelihoods = log_softmax(logits, -1, dtype=torch.float32)
    places = labels[:, None]
    loss = -likelihoods.gather(1, places).sum()
    slope = likelihoods.exp_()
    slope.scatter_add_(1, places, torch.full_like(places, label_smoothing - 1, dtype=slope.dtype))
    if label_smoothing:
        slope.sub_(label_smoothing / slope.shape[1])
    return loss, slope.to(logits.dtype)
