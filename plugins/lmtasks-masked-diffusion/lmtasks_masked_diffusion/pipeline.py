"""The pipeline of masked-diffusion: masks become words, some at each step, wherever in the text they stand."""

import torch
from transformers import Pipeline


class UnmaskingPipeline(Pipeline):
    """Texts with masks, or beginnings of texts, to texts without: ``{"text": ..., "ids": ...}``.

    Arguments of a call:
        length: masks that are put behind the text; if not said, 16 where it has none of its own.
        steps: in how many steps they become words, about as many in each; if not said, one at a time.
        order: which become words first, "confident": those of which the model is surest; or "random".
        temperature: 0 takes the likeliest word; above that it is drawn, and the likelier ones more often below 1.
    """

    _load_tokenizer = True

    def _sanitize_parameters(self, length=None, steps=None, order="confident", temperature=0.0):
        counts = (length is None or length >= 0) and (steps is None or steps >= 1)
        if not counts or temperature < 0 or order not in ("confident", "random"):
            raise ValueError("length and temperature are 0 or more, steps 1 or more, order is confident or random")
        return {"length": length}, {"steps": steps, "order": order, "temperature": temperature}, {}

    def draws(self, order="confident", temperature=0.0, **_):
        """Whether a seed changes anything."""
        return order == "random" or temperature > 0

    def preprocess(self, text, length):
        masks = 16 * (self.tokenizer.mask_token not in text) if length is None else length
        return self.tokenizer(text + masks * self.tokenizer.mask_token, return_tensors="pt")

    def _forward(self, inputs, steps, order, temperature):
        ids, mask = inputs.pop("input_ids"), self.tokenizer.mask_token_id
        total = (ids == mask).sum(1)
        steps = steps or int(total.max())
        for left in reversed(range(steps)):
            logits = self.model(input_ids=ids, **inputs).logits.float()
            # No special token was ever told, nor a row of the table that has no token.
            logits[..., self.tokenizer.all_special_ids] = logits[..., len(self.tokenizer) :] = -torch.inf
            chances = (logits / (temperature or 1)).softmax(-1)
            words = torch.multinomial(chances.flatten(0, 1), 1).view(ids.shape) if temperature else chances.argmax(-1)
            sure = chances.gather(-1, words[..., None])[..., 0] if order == "confident" else torch.rand(ids.shape)
            sure = sure.to(ids.device).masked_fill(ids != mask, -1)
            for row, count in enumerate(((ids == mask).sum(1) - total * left // steps).tolist()):
                chosen = sure[row].topk(count).indices
                ids[row, chosen] = words[row, chosen]
        return {"ids": ids}

    def postprocess(self, outputs):
        (ids,) = outputs["ids"].tolist()
        return {"text": self.tokenizer.decode(ids, skip_special_tokens=True), "ids": ids}
