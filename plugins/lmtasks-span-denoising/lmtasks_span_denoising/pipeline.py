"""What a trained model is used for: filling the gaps of a text."""

from __future__ import annotations

import re

from transformers import Pipeline

from lmtasks_span_denoising import SENTINELS

_SENTINEL = re.compile("|".join(SENTINELS))


class SpanFillingPipeline(Pipeline):
    """From a text with sentinels to the text with its gaps filled.

    ``{"text": ..., "spans": {sentinel: what it stands for}}``, the spans in the order of the text.
    """

    _load_tokenizer = True
    _pipeline_calls_generate = True

    def _sanitize_parameters(self, **arguments):
        return {}, arguments, {}

    def preprocess(self, inputs):
        """The ids of a text, and the text itself for filling it in."""
        return {"text": inputs, **self.tokenizer(inputs, return_tensors="pt")}

    def _forward(self, model_inputs, **arguments):
        text = model_inputs.pop("text")
        return {"text": text, "ids": self.model.generate(**model_inputs, **{"max_new_tokens": 64, **arguments})}

    def postprocess(self, model_outputs):
        """Every sentinel with what the model wrote behind it."""
        texts, rows = model_outputs["text"], model_outputs["ids"]
        written = self.tokenizer.decode(rows[0], skip_special_tokens=False)
        text = texts[0] if isinstance(texts, list) else texts
        spans = {sentinel: _after(written, sentinel) for sentinel in _SENTINEL.findall(text)}
        return {"text": _SENTINEL.sub(lambda found: spans[found[0]], text), "spans": spans}


def _after(written, sentinel):
    """What stands between a sentinel and the next special token."""
    found = re.search(rf"{re.escape(sentinel)}(.*?)(?=<extra_id_|</s>|<pad>|$)", written, re.DOTALL)
    return found.group(1).strip() if found else ""
