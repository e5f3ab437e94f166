"""Arguments of a pipeline: checked before any text is answered, and completed where one of them means another.

The libraries take much of what is wrong without a word: a target that is no token, a temperature where nothing is
drawn. Whatever has a name here is right, or refused with what to type instead.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import FillMaskPipeline, GenerationConfig, Pipeline, PreTrainedTokenizerBase

from lmtasks.api import Option, convert
from lmtasks.config.switches import SWITCHES
from lmtasks.errors import InputError, nearest

DRAWING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Arguments of generation that change how tokens are drawn, and so mean that they are."""

BEAMS = ("early_stopping", "length_penalty")
"""Arguments of generation that change how beams are compared."""

_NEEDS = {
    "max_matching_ngram_size": "prompt_lookup_num_tokens",
    "cache_config": "cache_implementation",
    "max_cache_len": "cache_implementation",
}
"""Arguments of generation that change nothing without another."""

_ON_THE_HUB = "transformers keeps it on the Hub, as code that is not run here"
_ASSISTED = "there is no assistant model"
_CHAT = "texts are no conversations"

REFUSED = {
    **dict.fromkeys(("penalty_alpha", "dola_layers", "low_memory", "constraints", "force_words_ids"), _ON_THE_HUB),
    **dict.fromkeys(("num_beam_groups", "diversity_penalty"), _ON_THE_HUB),
    **dict.fromkeys(("num_assistant_tokens", "num_assistant_tokens_schedule", "speculation_type"), _ASSISTED),
    **dict.fromkeys(("assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind"), _ASSISTED),
    "assistant_ensemble_weight": _ASSISTED,
    **dict.fromkeys(("tools", "documents", "continue_final_message"), _CHAT),
}
"""Arguments of generation that cannot be had here, and why."""

_NO_ARGUMENTS = {"transformers_version", "continuous_batching_config", "compile_config", "is_assistant"}
"""What a generation configuration holds besides arguments."""


def _all(kind: Any, help: str, names: str, **limits: float) -> dict[str, Option]:
    return {name: Option(name, kind | None, None, help, limits) for name in names.split()}


_COUNTS = (
    "max_new_tokens max_length num_beams num_return_sequences prefill_chunk_size prompt_lookup_num_tokens"
    " max_matching_ngram_size assistant_early_exit max_cache_len"
)
_ID, _IDS = "pad_token_id bos_token_id", "eos_token_id suppress_tokens begin_suppress_tokens"
_FORCED = "forced_bos_token_id forced_eos_token_id"

GENERATION: Mapping[str, Option] = {
    **_all(bool, "true or false", " ".join(SWITCHES)),
    **_all(int, "a count, 1 or more", _COUNTS, ge=1),
    **_all(int, "a count of tokens", "min_new_tokens min_length", ge=0),
    **_all(int, "tokens of a row that may not come again", "no_repeat_ngram_size encoder_no_repeat_ngram_size", ge=0),
    **_all(int, "number of a token", f"{_ID} {_FORCED}", ge=0),
    **_all(int, "draw from this many of the likeliest tokens, 0 from all", "top_k", ge=0),
    **_all(float, "below 1 draws the likeliest more often", "temperature", gt=0),
    **_all(float, "a share of the probability", "top_p typical_p top_h", gt=0, le=1),
    **_all(float, "a share of the probability of the likeliest", "min_p", ge=0, le=1),
    **_all(float, "least probability of a token", "epsilon_cutoff eta_cutoff", ge=0, lt=1),
    **_all(float, "above 1 makes repetition rarer", "repetition_penalty encoder_repetition_penalty", gt=0),
    **_all(float, "above 0 prefers long answers", "length_penalty"),
    **_all(float, "seconds", "max_time", gt=0),
    **_all(float, "a strength", "guidance_scale diversity_penalty", ge=0),
    **_all(str, "text before the prompt", "prefix"),
    **_all(list[str] | str, "texts that end the answer", "stop_strings stop_sequence"),
    **_all(list[int] | int, "numbers of tokens", _IDS, ge=0),
}
"""Arguments of generation whose type and range are known."""

FILLING: Mapping[str, Option] = {
    **_all(int, "how many guesses", "top_k", ge=1),
    **_all(list[str] | str, "the only tokens to guess", "targets"),
    **_all(dict[str, Any], "arguments of the tokenizer", "tokenizer_kwargs"),
}
"""Arguments of the pipeline that fills masks."""


def completed(pipeline: Pipeline, task: str, arguments: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """The arguments that the pipeline gets.

    Args:
        task: name of the pipeline, for messages.
        seed: of what is drawn; given only by somebody who expects that something is.

    Raises:
        InputError: an argument that nobody knows, of the wrong type, out of range or without any effect.
    """
    generates = bool(pipeline._pipeline_calls_generate)
    _require_known(pipeline, task, arguments, generates)
    for name in arguments:
        if generates and name in REFUSED:
            raise InputError(f"{task} cannot have '{name}': {REFUSED[name]}", f"leave --{name} out")
        if name in ("tokenizer_kwargs", "tokenizer_encode_kwargs"):
            _require_of_tokenizer(pipeline.tokenizer, name, arguments[name])
    fills = isinstance(pipeline, FillMaskPipeline)
    options = GENERATION if generates else FILLING if fills else {}
    checked = {name: convert(options[name], value) if name in options else value for name, value in arguments.items()}
    given = {name: value for name, value in checked.items() if value is not None}
    if generates:
        given = _generating(pipeline, task, given)
    if fills:
        given = _filling(pipeline.tokenizer, given)
    if seed is not None and not draws(pipeline, given):
        add = "add --do_sample, or leave --seed out" if generates else "leave --seed out"
        raise InputError(f"--seed {seed} changes nothing: {task} draws no tokens here", add)
    return given


def draws(pipeline: Pipeline, arguments: Mapping[str, Any]) -> bool:
    """Whether the pipeline draws tokens by chance; one of a recipe's own may say so in a method of that name."""
    if hasattr(pipeline, "draws"):
        return bool(pipeline.draws(**arguments))
    if not pipeline._pipeline_calls_generate:
        return False
    own = getattr(pipeline.model, "generation_config", None)
    usual = getattr(pipeline, "_default_generation_config", None)
    said = (arguments.get("do_sample"), getattr(own, "do_sample", None), getattr(usual, "do_sample", None))
    return bool(next((one for one in said if one is not None), False))


def known_arguments(pipeline: Pipeline, generates: bool) -> set[str]:
    """Names of what the pipeline takes and, if it generates, generation."""
    parameters = inspect.signature(pipeline._sanitize_parameters).parameters.values()
    known = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    if generates:
        known |= {name for name in GenerationConfig().to_dict() if not name.startswith("_")} - _NO_ARGUMENTS
    return known


def _require_known(pipeline: Pipeline, task: str, arguments: Iterable[str], generates: bool) -> None:
    known = known_arguments(pipeline, generates)
    for name in arguments:
        if name not in known:
            close = nearest(str(name), known)
            raise InputError(f"{task} takes no '{name}'{close}", "it takes the pipeline's arguments")


def _require_of_tokenizer(tokenizer: PreTrainedTokenizerBase, flag: str, given: Any) -> None:
    """Refuse arguments of a tokenizer that it would leave aside."""
    known = inspect.signature(tokenizer.__call__).parameters.keys() | {"split_special_tokens"}
    if not isinstance(given, dict):
        raise InputError(f"--{flag} cannot be {given!r}: it must be a JSON object", f"--{flag} '{{\"NAME\": VALUE}}'")
    for name in given:
        if name not in known:
            close = nearest(str(name), known)
            raise InputError(
                f"--{flag}: the tokenizer takes no '{name}'{close}", "it takes what tokenizers are called with"
            )


def _generating(pipeline: Pipeline, task: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of generation: none is idle, and what the stop strings need is there."""
    drawing = [name for name in DRAWING if name in given]
    if drawing and given.get("do_sample") is False:
        raise InputError(
            f"--{drawing[0]} is about drawing tokens, and --do_sample false draws none", "leave one of the two out"
        )
    if drawing:
        given = {**given, "do_sample": True}
    own = pipeline.model.generation_config
    beams = given.get("num_beams") or own.num_beams or 1
    for name in BEAMS:
        if name in given and beams == 1:
            raise InputError(f"--{name} is about beams, and there is one", f"add --num_beams 4, or leave --{name} out")
    for name, other in _NEEDS.items():
        if name in given and given.get(other, getattr(own, other, None)) is None:
            raise InputError(f"--{name} changes nothing without --{other}", f"add --{other}, or leave --{name} out")
    for least, most in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
        if given.get(least, 0) > given.get(most, math.inf):
            raise InputError(f"--{least} {given[least]} is more than --{most} {given[most]}", f"raise --{most}")
    size = pipeline.model.config.get_text_config().vocab_size
    for name in f"{_ID} {_IDS} {_FORCED}".split():
        for index in _listed(given.get(name, [])):
            if not 0 <= index < size:
                raise InputError(f"--{name} {index} is no token: the model has {size}", f"a number below {size}")
    for name in ("stop_strings", "stop_sequence"):
        if name in given and not all(_listed(given[name]) or [""]):
            raise InputError(f"--{name} is empty", f"--{name} TEXT")
    _require_sound(task, given, {"num_beams": beams, "do_sample": draws(pipeline, given)})
    parameters = inspect.signature(pipeline._sanitize_parameters).parameters.values()
    passes_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if passes_on and (given.keys() & {"stop_strings", "token_healing"} or getattr(own, "stop_strings", None)):
        given = {**given, "tokenizer": pipeline.tokenizer}
    return given


def _require_sound(task: str, given: Mapping[str, Any], effective: Mapping[str, Any]) -> None:
    """Refuse what transformers would only warn of: arguments that do not go together, or change nothing."""
    fields = GenerationConfig().to_dict().keys()
    values = {**effective, **{name: value for name, value in given.items() if name in fields}}
    try:
        GenerationConfig(**values).validate(strict=True)
    except Exception as error:
        raise refused(task, error, given) from error


def refused(task: str, error: Exception, arguments: Iterable[str]) -> InputError:
    """The objection of the libraries to some arguments, with its reason, in a line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    listed = [line[2:] for line in lines if line.startswith("- ")]
    reason = (listed or lines or [type(error).__name__])[0]
    # A key that is missing is all that such an error says.
    reason = f"{type(error).__name__}: {reason}" if isinstance(error, KeyError | AttributeError) else reason
    named = ", ".join(f"--{name}" for name in arguments if name != "tokenizer")
    return InputError(f"{task}: {reason}", f"check {named}" if named else "check the text, and the model")


def _filling(tokenizer: PreTrainedTokenizerBase, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments for filling masks: each target a token, and no more guesses than there are tokens."""
    if "targets" in given:
        texts = _listed(given["targets"])
        if not texts or "" in texts:
            raise InputError("--targets is empty", "--targets TOKEN")
        targets = [_as_token(tokenizer, text) for text in texts]
        given = {"top_k": len(set(targets)), **given, "targets": targets}
    if (wanted := given.get("top_k", 1)) > len(tokenizer):
        raise InputError(
            f"--top_k {wanted} is more than the vocabulary has: {len(tokenizer)} tokens",
            f"--top_k {len(tokenizer)} or less",
        )
    return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_token(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The token that a target is, as the vocabulary has it."""
    vocabulary = tokenizer.get_vocab()
    if text in vocabulary:
        return text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if len(pieces) == 1 and ids[0] != tokenizer.unk_token_id:
        return str(pieces[0])
    spaced = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    if len(spaced) == 1 and spaced[0] != tokenizer.unk_token_id:
        hint = f"with a space before it, it is one: --targets ' {text}'"
    else:
        hint = "give tokens of the vocabulary; without --targets the model guesses among all of them"
    cut = f"but {len(pieces)}: {' '.join(pieces[:6])}" if len(pieces) > 1 else "and unknown to the tokenizer"
    raise InputError(f"--targets '{text}' is not one token, {cut}", hint)
