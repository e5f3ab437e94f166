"""The pipeline of replaced-token-detection: how likely each token of a text is not its own."""

from transformers import Pipeline


class DetectionPipeline(Pipeline):
    """Texts to their tokens, each with the probability that somebody put it there."""

    _load_tokenizer = True

    def _sanitize_parameters(self):
        return {}, {}, {}

    def preprocess(self, text):
        return self.tokenizer(text, truncation=True, return_tensors="pt", return_special_tokens_mask=True)

    def _forward(self, inputs):
        special = inputs.pop("special_tokens_mask")
        return {"logits": self.model(**inputs).logits, "input_ids": inputs["input_ids"], "special": special}

    def postprocess(self, outputs):
        """A dictionary of each token: ``word``, as it stands in the text, and ``score``."""
        scores = outputs["logits"][0].float().sigmoid().tolist()
        told = zip(outputs["input_ids"][0], scores, outputs["special"][0], strict=True)
        return [{"word": self.tokenizer.decode(token), "score": score} for token, score, special in told if not special]
