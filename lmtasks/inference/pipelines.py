"""Changes to the pipelines of transformers, and a question to them, to answer many texts fast and right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import FillMaskPipeline, GenerationMixin, Pipeline, PreTrainedTokenizerBase, TextGenerationPipeline
from transformers.pipelines.base import pad_collate_fn

from lmtasks.api import Batch
from lmtasks.models.agreement import agree
from lmtasks.models.lm_head import Head, separate_head
from lmtasks.models.products import cheap_forward


@contextmanager
def asking(seed: int | None, device: torch.device) -> Iterator[None]:
    """While this is open a pipeline is asked: its model's forward passes are cheap, and chance begins at the seed.

    Afterwards chance goes on as if nothing had been drawn.
    """
    with cheap_forward(device):
        if seed is None:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield


def take_prepared(pipeline: Pipeline) -> None:
    """Let the pipeline take what it has prepared before as it is."""
    preprocess = pipeline.preprocess

    def prepared(inputs: Any, **parameters: Any) -> Any:
        return inputs if isinstance(inputs, dict) else preprocess(inputs, **parameters)

    pipeline.preprocess = prepared


class MasksOnly:
    """A fill-mask pipeline's way of answering from now on, without the logits that it would throw away.

    It reads those of the masks alone, but the projection to the vocabulary is half the work of a small model,
    and its logits are nearly all that comes back from a GPU. Only for batches: a single text is the pipeline's own.
    """

    def __init__(self, pipeline: FillMaskPipeline) -> None:
        self.model, self.mask = pipeline.model, pipeline.tokenizer.mask_token_id
        self._forward, self._postprocess = pipeline._forward, pipeline.postprocess
        self._asked = False
        pipeline._forward, pipeline.postprocess = self.forward, self.postprocess

    def forward(self, inputs: Batch) -> Any:
        """The logits of the masks, a tensor [masks, vocabulary] for each text; or of all tokens, as without this."""
        ids = inputs["input_ids"]
        head = self._head(inputs) if len(ids) > 1 else None
        if head is None:
            return self._forward(inputs)
        masked = ids == self.mask
        logits = head.logits(head.hidden(inputs, masked)[masked], inputs)
        return {"input_ids": ids, "mask_logits": torch.split(logits, masked.sum(1).tolist())}

    def postprocess(self, outputs: Any, **parameters: Any) -> Any:
        """The pipeline's guesses for one text."""
        if "mask_logits" in outputs:
            ids, found = outputs["input_ids"], outputs["mask_logits"][0]
            # The pipeline looks for them at their places. What is between is never read, and so takes no memory.
            logits = found.new_empty(*ids.shape, found.shape[-1])
            logits[ids == self.mask] = found
            outputs = {"input_ids": ids, "logits": logits}
        return self._postprocess(outputs, **parameters)

    def _head(self, inputs: Batch) -> Head | None:
        """The model's head on its own, if it gives the same logits on a corner of the first batch."""
        if not self._asked:
            self._asked = True
            self.model.requires_grad_(False)  # nothing is to be learned about gradients
            separate_head(self.model, {name: value[:2, :16] for name, value in inputs.items()})
        return getattr(self.model, "lmtasks_head", None)


def keep_first_space(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the tokenizer decode a continuation with the space that it begins with.

    SentencePiece's way of decoding drops the first space, which is right for a text and wrong for
    what the text-generation pipeline decodes: the new tokens alone ("The cat" + "sat" = "The catsat").
    """
    decode = tokenizer.decode

    def decoded(ids: Sequence[int], *arguments: Any, **options: Any) -> Any:
        text = decode(ids, *arguments, **options)
        # A model may have more rows than its tokenizer has tokens; such an id has no word.
        first = (tokenizer.convert_ids_to_tokens(int(ids[0])) if len(ids) else None) or ""
        return f" {text}" if first.startswith("\u2581") and not text.startswith(" ") else text

    tokenizer.decode = decoded


def disturbed_by_padding(pipeline: Pipeline, shorter: Batch, longer: Batch) -> bool:
    """Whether a text gets other logits beside a longer one than alone.

    Some models have no mask (FNet), count positions from the left (the decoder of BART), or lose the mask when they
    generate (XLNet). What their pipelines answer then depends on the other texts of the batch.

    Of a pipeline that fills masks their logits are compared, of one that generates those of the first new tokens.
    What others read of their inputs is not known here; they count as not disturbed.
    """
    generate = getattr(type(pipeline.model), "generate", None)
    if isinstance(pipeline, FillMaskPipeline):
        logits = _of_masks
    elif pipeline._pipeline_calls_generate and generate is GenerationMixin.generate:
        logits = _of_new_tokens
    else:
        return False
    together = pad_collate_fn(pipeline.tokenizer, pipeline.feature_extractor)([shorter, longer])
    # Half of the digits have to be right: what is computed layer after layer keeps no more.
    half = math.sqrt(torch.finfo(pipeline.model.dtype).eps)
    return not agree(logits(pipeline, together), logits(pipeline, shorter), spread=half, overall=True)


def _of_masks(pipeline: Pipeline, inputs: Batch) -> torch.Tensor:
    """Logits of the masks of the first text, [masks, vocabulary]."""
    outputs = pipeline.forward(inputs)
    masked = outputs["input_ids"][0] == pipeline.tokenizer.mask_token_id
    logits: torch.Tensor = outputs["mask_logits"][0] if "mask_logits" in outputs else outputs["logits"][0, masked]
    return logits


def _of_new_tokens(pipeline: Pipeline, inputs: Batch) -> torch.Tensor:
    """Logits of the first two tokens that the first text is continued with, [2, vocabulary].

    The first comes from the text, the second from what the model keeps of it (GIT loses the places only there).
    """
    names = ("input_ids", "attention_mask") if isinstance(pipeline, TextGenerationPipeline) else inputs
    device = pipeline.model.device
    read = {name: value.to(device) for name, value in inputs.items() if name in names and torch.is_tensor(value)}
    last = int(read[pipeline.model.main_input_name][0, -1])
    output = pipeline.model.generate(
        **read,
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        min_new_tokens=2,
        max_new_tokens=2,
        stop_strings=None,
        # The same first token whatever the rounding, or the second could be about another text.
        prefix_allowed_tokens_fn=lambda text, ids: [last],
        pad_token_id=pipeline.tokenizer.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack([logits[0] for logits in output.logits])
