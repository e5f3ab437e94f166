"""The pipeline of replaced-token-detection: how likely each token of a text is not its own."""

from __future__ import annotations

from typing import Any

from transformers import Pipeline


class DetectionPipeline(Pipeline):
    """Texts to their tokens, each with the probability that somebody put it there."""

    _load_tokenizer = True

    def _sanitize_parameters(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, {}, {}

    def preprocess(self, text: str) -> Any:
        return self.tokenizer(text, truncation=True, return_tensors="pt", return_special_tokens_mask=True)

    def _forward(self, inputs: Any) -> dict[str, Any]:
        special = inputs.pop("special_tokens_mask")
        return {"logits": self.model(**inputs).logits, "input_ids": inputs["input_ids"], "special": special}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        """A dictionary of each token: ``word``, as it stands in the text, and ``score``."""
        scores = outputs["logits"].float().sigmoid()[0].tolist()
        words = [self.tokenizer.decode([token]) for token in outputs["input_ids"][0].tolist()]
        told = zip(words, scores, outputs["special"][0].tolist(), strict=True)
        return [{"word": word, "score": score} for word, score, special in told if not special]
