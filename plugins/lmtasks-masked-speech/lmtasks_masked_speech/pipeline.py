"""What a trained model is asked for: the codes of a recording, and how well it tells its hidden steps apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from lmtasks import EVALUATION_SEED, InputError
from lmtasks_masked_speech import MaskedSpeechOptions
from lmtasks_masked_speech.hearing import ear_of
from lmtasks_masked_speech.loss import codes_of, loss
from lmtasks_masked_speech.masking import collator
from lmtasks_masked_speech.metrics import CodebookPerplexity
from lmtasks_masked_speech.pieces import cuts, example_of, steps_of
from lmtasks_masked_speech.sounds import extent, read, resampled


class SpeechPipeline(Pipeline):
    """From the name of a file to its codes, one list for each step, and the figures of the contrastive task on it."""

    _load_tokenizer = False
    _load_feature_extractor = True

    def _sanitize_parameters(
        self,
        max_seconds: float | None = None,
        mask_time_prob: float | None = None,
        mask_time_length: int | None = None,
        num_negatives: int | None = None,
    ) -> Any:
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        return {}, given, {}

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        cell = {"path": str(inputs), "bytes": None}
        frames, own = extent(cell)
        rate = self.feature_extractor.sampling_rate
        samples = resampled(frames, own, rate)
        # A dictionary in a dictionary: what is no tensor is not padded, so every recording stays by itself.
        return {"sound": {"name": str(inputs), "wave": read(cell, 0, samples, rate)}}

    def _forward(self, model_inputs: dict[str, Any], **given: Any) -> dict[str, Any]:
        sounds = model_inputs["sound"]
        options = MaskedSpeechOptions(**given)
        if isinstance(sounds, list):
            return {"answer": [self._answer(sound, options) for sound in sounds]}
        return {"answer": self._answer(sounds, options)}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = model_outputs["answer"]
        return answer

    def _answer(self, sound: dict[str, Any], options: MaskedSpeechOptions) -> dict[str, Any]:
        """Piece by piece, so that an hour takes no more memory than half a minute."""
        rate, wave = self.feature_extractor.sampling_rate, sound["wave"]
        config = self.model.config
        collate = collator(self.feature_extractor, options, False)
        codes: list[list[int]] = []
        total, targets, correct, counts = 0.0, 0, 0, []
        for number, (start, stop) in enumerate(cuts(len(wave), int(options.max_seconds * rate))):
            if steps_of(stop - start, config) < max(options.mask_time_length, 2):
                raise InputError(f"{sound['name']} is too short: {len(wave) / rate:.3g} seconds", "give a longer one")
            example = example_of(wave[start:stop], self.feature_extractor, config)
            batch = collate([{**example, "seed": (EVALUATION_SEED, 0, number)}])
            batch = {name: value.to(self.device) for name, value in batch.items()}
            codes += self._codes(batch["input_values"])
            summed, count, more = loss(self.model, batch)
            total, targets, correct = total + float(summed), targets + int(count), correct + int(more["correct"])
            counts.append(more["codes"].tolist())
        if not codes:
            raise InputError(f"{sound['name']} holds no sound", "give a recording with sound")
        return {
            "seconds": round(len(wave) / rate, 3),
            "contrastive_loss": total / targets,
            "contrastive_accuracy": correct / targets,
            **CodebookPerplexity(keep_in_memory=True).compute(codes=counts),
            "codes": codes,
        }

    def _codes(self, values: torch.Tensor) -> list[list[int]]:
        """The code of every group at every step."""
        _, heard = ear_of(self.model).listen(self.model, None, {"input_values": values})
        found: list[list[int]] = np.asarray(codes_of(self.model.quantizer, heard["codevectors"])[0].cpu()).tolist()
        return found
