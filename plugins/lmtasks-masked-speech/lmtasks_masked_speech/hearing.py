"""What goes on inside a model on the way to its outputs: overheard, and kept from depending on what shares the batch.

A recording must mean the same alone and among longer ones, or a figure would depend on how examples were batched.
Padding breaks that in two places of these models. In the smaller one a group normalisation takes means over time,
silence of the padding included. (The authors had no padding: they cut everything in a batch to one length. Feature
extractors of such checkpoints say ``return_attention_mask: false``.) And the convolutions of Conformer layers reach
over the end. So the normalisation is done over the steps of each recording, the convolutions find zeros behind its
end, as they do when it is alone, and the model itself masks attention. Without padding the model runs as it is.
"""

from __future__ import annotations

from typing import Any

import torch

from lmtasks import unwrapped


class Ear:
    """Listens to a model, by hooks that stay: with gradient checkpointing a layer runs once more, backwards.

    Args:
        model: with a convolutional encoder and a quantizer. Nothing of this is saved with it.
    """

    def __init__(self, model: Any) -> None:
        self.config = model.config
        self.lengths: torch.Tensor | None = None
        self.heard: dict[str, torch.Tensor] = {}
        encoder = model.base_model.feature_extractor
        encoder.register_forward_hook(self._keep("features"))
        model.quantizer.weight_proj.register_forward_hook(self._keep("logits"))
        model.quantizer.register_forward_hook(self._keep("codevectors"))
        for module in encoder.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.register_forward_hook(self._normalised)
        for name, module in model.named_modules():
            if name.endswith("conv_module.depthwise_conv"):
                module.register_forward_pre_hook(self._silenced)

    def listen(self, model: Any, lengths: torch.Tensor | None, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """What a model says, and what was heard: ``features``, ``logits`` and ``codevectors``.

        Args:
            model: the same model, wrapped or not.
            lengths: samples of each recording, int64 [recordings]; None: all are of one length.
            inputs: of the model.
        """
        self.lengths = lengths
        try:
            return model(**inputs), dict(self.heard)
        finally:
            self.heard.clear()

    def steps(self, lengths: torch.Tensor, layers: int | None = None) -> torch.Tensor:
        """How many steps so many samples have behind the first convolutions, or all."""
        for kernel, stride in list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))[:layers]:
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _keep(self, name: str) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            self.heard[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def _normalised(self, norm: torch.nn.GroupNorm, inputs: tuple[torch.Tensor], output: torch.Tensor) -> Any:
        """Group normalisation of [recordings, channels, steps], over each recording's own steps."""
        if self.lengths is None:
            return None
        values = inputs[0].float()
        own = within(self.steps(self.lengths, 1), values.shape[-1])[:, None, None]
        grouped = values.unflatten(1, (norm.num_groups, -1))
        count = own.sum(-1, keepdim=True) * grouped.shape[2]
        mean = (grouped * own).sum((2, 3), keepdim=True) / count
        variance = ((grouped - mean).square() * own).sum((2, 3), keepdim=True) / count
        normal = ((grouped - mean) * (variance + norm.eps).rsqrt()).flatten(1, 2)
        return (normal * norm.weight[:, None] + norm.bias[:, None]).to(output.dtype)

    def _silenced(self, convolution: Any, inputs: tuple[torch.Tensor]) -> Any:
        """Zeros behind the end of each recording, [recordings, channels, steps]."""
        if self.lengths is None:
            return None
        return (inputs[0] * within(self.steps(self.lengths), inputs[0].shape[-1])[:, None],)


def within(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Which places are inside, bool [lengths, longest]."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def ear_of(model: Any) -> Ear:
    """The ear of a model, which may be wrapped for several processes."""
    inner = unwrapped(model)
    if not hasattr(inner, "lmtasks_ear"):
        inner.lmtasks_ear = Ear(inner)
    ear: Ear = inner.lmtasks_ear
    return ear
