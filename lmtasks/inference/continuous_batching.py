"""Continuous batching: a continuation that is finished leaves its batch, and a prompt that waits takes its place.

transformers' ``generate`` prepares everything, the processors of the scores and what ends a continuation included; only
its loop over the tokens is another one, which is what its argument ``custom_generate`` is for. Each row is processed,
and draws, by itself: what its neighbours are, and how many, changes nothing of it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    DynamicCache,
    EosTokenCriteria,
    GenerationMixin,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    Pipeline,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
    TextGenerationPipeline,
)
from transformers.generation import GenerationMode
from transformers.pipelines.base import pad_collate_fn

from lmtasks.api import Batch
from lmtasks.inference.kept import Kept, of_one_length
from lmtasks.progress import stage

SHARE = 4
"""New prompts come in as soon as this part of a batch is free: one at a time would read all weights for each."""

PADDING = 8
"""Prompts are read side by side where that adds at most this part of their tokens to fill up the shorter ones."""

FEW = 64
"""Tokens that take no longer than reading the weights does: so many may always be read side by side."""

BY_ROW = {
    "EpsilonLogitsWarper", "EtaLogitsWarper", "InfNanRemoveLogitsProcessor", "LogitNormalization",
    "MinLengthLogitsProcessor", "MinNewTokensLengthLogitsProcessor", "MinPLogitsWarper", "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor", "RepetitionPenaltyLogitsProcessor", "SequenceBiasLogitsProcessor",
    "SuppressTokensLogitsProcessor", "TemperatureLogitsWarper", "TopHLogitsWarper", "TopKLogitsWarper",
    "TopPLogitsWarper", "TypicalLogitsWarper",
}  # fmt: skip
"""Processors of scores that know of a row what it says, not how long a batch is or where it began."""

ENDS = {"EosTokenCriteria", "MaxLengthCriteria", "StopStringCriteria"}
"""Criteria that end a row by what it says; its length is counted here."""

FORWARDED = {"attention_mask", "logits_to_keep", "past_key_values", "position_ids", "use_cache"}
"""All that the loop of generation may have to hand to the model."""

ODD = 0x9E3779B97F4A7C15
"""A number that keeps the seeds of neighbours apart: 2^64 by the golden ratio."""


class _Unsuitable(Exception):  # noqa: N818  (it is no error)
    """This model, or these arguments, need transformers' own loop; nothing has been answered."""


def continuously_answered(
    pipeline: Pipeline, prepared: Sequence[Batch], rows: int, arguments: dict[str, Any], seed: int | None
) -> list[Any] | None:
    """The pipeline's answers to prompts, in their order; None where it takes transformers' own loop to answer.

    Args:
        prepared: what the pipeline made of each prompt.
        rows: continuations at once.
        seed: the first prompt draws what it would draw alone; from torch's generator when None.
    """
    generate = getattr(type(pipeline.model), "generate", None)
    if type(pipeline) is not TextGenerationPipeline or generate is not GenerationMixin.generate:
        return None
    _, forward, postprocess = pipeline._sanitize_parameters(**arguments)
    # With a loop of another's, generate forgets the tokenizer that stop strings are looked for with.
    tokenizer, strings = (forward.pop(name, None) for name in ("tokenizer", "stop_strings"))
    if strings:
        forward["stopping_criteria"] = StoppingCriteriaList([StopStringCriteria(pipeline.tokenizer, strings)])
    elif tokenizer:
        return None
    prompts = [inputs["input_ids"][0].tolist() for inputs in prepared]
    if not all(prompts):
        return None
    first = int(torch.randint(2**63 - 1, ())) if seed is None else seed
    loop = _Loop(pipeline.tokenizer, prompts, rows, first)
    try:
        # What is prepared is for any batch: that of the longest prompt fails first where something is too long.
        longest = max(prepared, key=lambda inputs: int(inputs["input_ids"].shape[1]))
        pipeline.forward(dict(longest), **{**pipeline._forward_params, **forward, "custom_generate": loop})
    except _Unsuitable:
        return None
    shown = {**pipeline._postprocess_params, **postprocess}
    return [
        pipeline.postprocess({**_about(inputs), "generated_sequence": torch.tensor([[ids]])}, **shown)
        for inputs, ids in zip(prepared, loop.answers, strict=True)
    ]


def _about(inputs: Batch) -> Batch:
    """What the pipeline tells of a prompt."""
    return {name: inputs[name] for name in ("input_ids", "prompt_text")}


@dataclass
class _Row:
    """A continuation while it grows.

    Args:
        number: of the prompt.
        ids: of the prompt and of what was added.
        most: how many they may become.
        chance: what it draws from; None where nothing is drawn.
    """

    number: int
    ids: list[int]
    most: int
    processors: LogitsProcessorList
    chance: torch.Generator | None

    def choice(self, scores: torch.Tensor) -> int:
        """The next token by its scores, [1, vocabulary]."""
        if self.processors:
            scores = self.processors(torch.tensor([self.ids], device=scores.device), scores)
        if self.chance is None:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.chance))


def _choices(rows: Sequence[_Row], scores: torch.Tensor) -> list[int]:
    """The next token of each row by their scores, [rows, vocabulary]."""
    if not any(row.processors or row.chance for row in rows):
        return list(scores.argmax(-1).tolist())
    return [row.choice(its) for row, its in zip(rows, scores[:, None], strict=True)]


class _Ends:
    """What ends a row beside its length: tokens, and texts."""

    def __init__(self, criteria: StoppingCriteriaList, device: torch.device) -> None:
        tokens = [one for one in criteria if isinstance(one, EosTokenCriteria)]
        self.tokens = {token for one in tokens for token in one.eos_token_id.tolist()}
        self.texts = [one for one in criteria if isinstance(one, StopStringCriteria)]
        self.device = device

    def reached(self, row: _Row) -> bool:
        """Whether the newest token of a row is its last one."""
        if len(row.ids) >= row.most or row.ids[-1] in self.tokens:
            return True
        written = torch.tensor([row.ids], device=self.device) if self.texts else None
        return any(bool(one(written, None)) for one in self.texts)


class _Loop:
    """The loop over the tokens of all prompts, as ``generate`` calls it."""

    def __init__(self, tokenizer: Any, prompts: list[list[int]], rows: int, seed: int) -> None:
        self.tokenizer, self.prompts, self.most_rows, self.seed = tokenizer, prompts, rows, seed
        self.answers: list[list[int]] = [[] for _ in prompts]

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The ids that it was given, since nobody reads them: the answers are in :attr:`answers`."""
        _require_suitable(generation_config, logits_processor, stopping_criteria, kwargs)
        ends = _Ends(stopping_criteria, model.device)
        # The longest first, so that what does not fit into memory fails at once.
        order = sorted(range(len(self.prompts)), key=lambda number: -len(self.prompts[number]))
        waiting = deque(self._row(number, logits_processor, generation_config, model.device) for number in order)
        with stage("predicting", len(order), "texts") as progress:
            for done in self._continue(_Batch(model, kwargs), waiting, ends):
                progress.update(done)
        return input_ids

    def _continue(self, batch: _Batch, waiting: deque[_Row], ends: _Ends) -> Iterator[int]:
        """After each token, how many prompts are answered."""
        done = 0
        while waiting or batch.rows:
            free = self.most_rows - len(batch.rows)
            if waiting and (not batch.rows or free * SHARE >= self.most_rows):
                rows = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                scores = torch.cat([batch.admit(some, self._padded(some, batch.model.device)) for some in _alike(rows)])
            else:
                rows = [*batch.rows]
                scores = batch.step()
            for row, token in zip(rows, _choices(rows, scores), strict=True):
                row.ids.append(token)
            finished = {row.number for row in rows if ends.reached(row)}
            for row in batch.release(finished):
                self.answers[row.number] = row.ids
            done += len(finished)
            yield done

    def _row(self, number: int, processors: LogitsProcessorList, config: Any, device: torch.device) -> _Row:
        prompt = self.prompts[number]
        own = LogitsProcessorList(
            _for_prompt(one, len(prompt), device)
            for one in processors
            # Made of the new tokens and the length of another prompt; those have a processor of their own.
            if not (config.min_new_tokens and isinstance(one, MinLengthLogitsProcessor))
        )
        chance = None
        if config.do_sample:
            chance = torch.Generator(device).manual_seed((self.seed + number * ODD) % 2**63)
        return _Row(number, [*prompt], len(prompt) + config.max_new_tokens, own, chance)

    def _padded(self, rows: Sequence[_Row], device: torch.device) -> Batch:
        """The prompts side by side, filled up on the left."""
        prompts = [torch.tensor([row.ids]) for row in rows]
        parts = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in prompts]
        batch = pad_collate_fn(self.tokenizer, None)(parts) if len(parts) > 1 else parts[0]
        return {name: value.to(device) for name, value in batch.items()}


def _alike(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Rows in groups of similar lengths, the longest first as they come."""
    group: list[_Row] = []
    for row in rows:
        tokens = len(row.ids) + sum(len(one.ids) for one in group)
        filled = (len(group) + 1) * len((group or [row])[0].ids)
        if filled > max(FEW, tokens + tokens // PADDING):
            yield group
            group = []
        group.append(row)
    yield group


class _Batch:
    """The rows that are continued together, with the keys and values that the model keeps of them."""

    def __init__(self, model: PreTrainedModel, prepared: dict[str, Any]) -> None:
        self.model, self.rows = model, list[_Row]()
        self.empty = prepared["past_key_values"]
        self.positions = "position_ids" in prepared
        self.kept = {name: prepared[name] for name in ("logits_to_keep",) if name in prepared}
        self.cache: DynamicCache | None = None
        self.mask = torch.ones(0)

    def admit(self, rows: Sequence[_Row], inputs: Batch) -> torch.Tensor:
        """The scores of the next tokens of new rows, [rows, vocabulary].

        Raises:
            _Unsuitable: the model does not keep what it has read.
        """
        cache, mask = self._new_cache(), inputs["attention_mask"]
        scores = self._scores(inputs["input_ids"], mask, cache, first=True)
        if cache.get_seq_length() != mask.shape[1]:
            raise _Unsuitable  # it has left the cache aside, and would be asked about newest tokens alone
        if self.cache is None:
            self.cache, self.mask = cache, mask
        else:
            for one, other in zip(_layers(self.cache), _layers(cache), strict=True):
                one.join(other)
            self.mask = torch.cat(of_one_length([self.mask, mask], dim=1))
        self.rows.extend(rows)
        return scores

    def step(self) -> torch.Tensor:
        """The scores of the next tokens of all rows, [rows, vocabulary]."""
        newest = torch.tensor([row.ids[-1:] for row in self.rows], device=self.mask.device)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(newest), 1)], dim=1)
        return self._scores(newest, self.mask, self.cache, first=False)

    def release(self, numbers: set[int]) -> list[_Row]:
        """The rows of these numbers, which are no longer in the batch, nor is what only they were so long for."""
        gone = [row for row in self.rows if row.number in numbers]
        if not gone:
            return gone
        keep = torch.tensor([row.number not in numbers for row in self.rows], device=self.mask.device)
        self.rows = [row for row in self.rows if row.number not in numbers]
        self.mask = self.mask[keep]
        if not self.rows:
            self.cache = None
            return gone
        padding = int(self.mask.argmax(1).min())
        self.mask = self.mask[:, padding:]
        for layer in _layers(self.cache):
            layer.select(keep, padding)
        return gone

    def _new_cache(self) -> DynamicCache:
        cache = copy.deepcopy(self.empty)
        cache.layers = [Kept() for _ in cache.layers]
        if cache.layer_class_to_replicate:  # the model's configuration does not say how many there are
            cache.layer_class_to_replicate = Kept
        return cache

    def _scores(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, *, first: bool) -> torch.Tensor:
        places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]} if self.positions else {}
        inputs = self.model.prepare_inputs_for_generation(
            ids,
            next_sequence_length=ids.shape[1],
            past_key_values=cache,
            attention_mask=mask,
            use_cache=True,
            is_first_iteration=first,
            **places,
            **self.kept,
        )
        scores: torch.Tensor = self.model(**inputs, return_dict=True).logits[:, -1].float()
        return scores


def _require_suitable(
    config: Any, processors: LogitsProcessorList, criteria: StoppingCriteriaList, kwargs: dict[str, Any]
) -> None:
    """Refuse what is about more than a row, and models that keep something else than keys and values."""
    cache: Any = kwargs.get("past_key_values")
    positions = kwargs.get("position_ids")
    suitable = (
        config.get_generation_mode() in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
        and (config.num_return_sequences or 1) == 1
        and not config.return_dict_in_generate
        and config.max_new_tokens is not None
        and config.prefill_chunk_size is None
        and not config.token_healing
        and {type(one).__name__ for one in processors} <= BY_ROW
        and {type(one).__name__ for one in criteria} <= ENDS
        and {name for name, value in kwargs.items() if value is not None} <= FORWARDED
        and kwargs.get("use_cache")
        and type(cache) is DynamicCache
        and {type(layer).__name__ for layer in cache.layers} <= {"DynamicLayer"}
        and (positions is None or positions.ndim == 2)
    )
    if not suitable:
        raise _Unsuitable


def _for_prompt(processor: Any, length: int, device: torch.device) -> Any:
    """The processor for a prompt of this length."""
    if isinstance(processor, MinNewTokensLengthLogitsProcessor):
        ends = processor.eos_token_id
        return MinNewTokensLengthLogitsProcessor(length, processor.min_new_tokens, ends, device=str(device))
    return processor


def _layers(cache: Any) -> list[Kept]:
    """Those that keep something: some models have layers that share what others keep."""
    return [layer for layer in cache.layers if layer.is_initialized]
