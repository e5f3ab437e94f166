"""The model of a run: a checkpoint or a fresh one, and what it can take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import Recipe, resolve
from lmtasks.config.settings import AdapterSettings, ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.adapters import add_adapter, base_of, has_adapter, load_adapter
from lmtasks.models.added_tokens import AddedTokens, make_room, start_rows
from lmtasks.models.architectures import adapted
from lmtasks.models.config import _fresh, fit_to_tokenizer, require_attention, rows_of
from lmtasks.models.load_errors import found_or_explained, require_sound_generation
from lmtasks.models.numbers import is_quantised, keep_gradients, loading, require_meant
from lmtasks.models.weight_files import folder_of, require_own_name, require_safetensors, saved_kinds

OLD_MASK = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias|causal_mask)$")
"""Causal masks that older versions of transformers saved among the weights; models make their own."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and how it came to be.

    Args:
        model: on the CPU, weights in float32 unless the settings say otherwise; the adapter that is trained is in it.
        new_weights: names of the weights that the checkpoint did not have.
        grown: rows added to the embeddings for the tokenizer's tokens.
        unused: names of the checkpoint's weights that the model has no place for, sorted.
    """

    model: PreTrainedModel
    new_weights: tuple[str, ...] = ()
    grown: int = 0
    unused: tuple[str, ...] = ()

    def notes(self) -> Iterator[str]:
        """What became of the weights of a checkpoint, in words."""
        for names, what in ((self.new_weights, "are new"), (self.unused, "of the checkpoint have no use here")):
            if names:
                yield f"{len(names)} weights {what}: {', '.join(names[:3])}"
        if self.model.dtype != torch.float32 and not has_adapter(self.model) and not is_quantised(self.model):
            yield f"weights in {str(self.model.dtype)[6:]} lose steps of less than 1/256 of them; float32 does not"
        if self.grown:
            yield f"embeddings grown by {self.grown} rows for the tokenizer's tokens"


def load_model(
    settings: ModelSettings,
    recipe: Recipe,
    config: PretrainedConfig,
    processor: Any,
    seed: int,
    added: AddedTokens = AddedTokens(),  # noqa: B008  (immutable)
    adapter: AdapterSettings = AdapterSettings(),  # noqa: B008
) -> LoadedModel:
    """The checkpoint's model, or a fresh one with weights drawn from the seed; its embeddings fit a tokenizer.

    Args:
        added: the tokens that the checkpoint's vocabulary lacked; their rows start at those of their pieces.

    Raises:
        InputError: no weights or damaged ones; or, without ``--allow_new_weights``, some that are
            missing, or that belong inside the model and have no place there.
    """
    model_class = resolve(recipe.model_class)
    transformers.set_seed(seed)
    if not settings.model_name_or_path:
        fresh = _fresh(model_class, fit_to_tokenizer(config, processor), settings.attn_implementation)
        return LoadedModel(adapted(fresh, recipe))
    name = settings.model_name_or_path
    require_attention(settings, model_class, config)
    how = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code, **loading(settings)}
    model, missing, unused = pretrained(model_class, name, config=config, **how)
    if not settings.allow_new_weights:
        require_weights(model, missing, unused, name)
    loaded = LoadedModel(adapted(model, recipe), missing, _grow(model, processor, added), unused)
    if adapter.asked:
        add_adapter(model, recipe, adapter, name, settings.revision, missing)
    if loaded.grown and has_adapter(model):
        raise InputError(
            f"the tokenizer has {loaded.grown} tokens more than '{name}', and an adapter cannot learn them",
            "save the model with its new tokens first, or train all of it",
        )
    return loaded


def require_one_truth(model: PreTrainedModel, name: str) -> None:
    """Refuse a model whose configuration ties two weights of which the checkpoint has two different ones.

    It would be trained, and saved, as two, and by whoever believes its configuration be read as one.
    """
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    apart = sorted(tied.items() - model.all_tied_weights_keys.items())
    for one, other in apart:
        if not torch.equal(model.get_parameter(one), model.get_parameter(other)):
            raise InputError(
                f"the configuration of '{name}' ties {one} to {other}, and its weights have two different ones",
                "if they are two, write tie_word_embeddings: false into its config.json; else save the model again",
            )


def require_numbers(model: PreTrainedModel, name: str) -> None:
    """Refuse weights that are NaN or infinite, as a run that diverged leaves them: all their answers are NaN."""
    for key, weight in model.named_parameters():
        if weight.detach().sum().isfinite() or weight.isfinite().all():  # a sum of numbers can be too large for one
            continue
        what = "NaN" if weight.isnan().any() else "infinity"
        raise InputError(
            f"the weights in '{name}' hold {what} in place of numbers, such as {key}",
            "take an earlier checkpoint of it, or the model that it was trained from",
        )


def pretrained(model_class: Any, name: str, **how: Any) -> tuple[PreTrainedModel, tuple[str, ...], tuple[str, ...]]:
    """The model of a checkpoint, the names of the weights that it lacks, and of those that the model has no place for.

    That of an adapter is the model that it is for, with the adapter in it.

    Args:
        how: arguments of ``from_pretrained``.

    Raises:
        InputError: no weights, damaged ones, or such as do not fit the configuration.
    """
    if base := base_of(name, how.get("revision", "main")):
        loaded = pretrained(model_class, base.name, **{**how, "revision": base.revision})
        load_adapter(loaded[0], name, base, how.get("revision", "main"))
        return loaded
    require_safetensors(name)
    require_sound_generation(name)
    with found_or_explained("model", name):
        folder = folder_of(name, how.get("revision", "main"))
        require_own_name(folder)
        model, report = model_class.from_pretrained(
            name,
            use_safetensors=True,
            output_loading_info=True,
            # Only to hear which ones: transformers' own refusal has them in a table on the log.
            ignore_mismatched_sizes=True,
            **how,
        )
    if report["mismatched_keys"]:
        key, saved, wanted = sorted(report["mismatched_keys"])[0]
        raise InputError(
            f"the weights in '{name}' do not fit its config.json: {key} is {list(saved)}, not {list(wanted)}",
            "take weights and configuration from the same model",
        )
    if "quantization_config" not in how:  # else they were whole until now
        require_meant(model, name, saved_kinds(folder))
    require_one_truth(model, name)
    require_numbers(model, name)
    keep_gradients(model)
    missing, unused = (tuple(sorted(report[kind])) for kind in ("missing_keys", "unexpected_keys"))
    return model, missing, unused


def loaded_like(model: PreTrainedModel, settings: ModelSettings, model_class: Any, name: str) -> PreTrainedModel:
    """The model of a folder in the numbers that another one is in."""
    how = {"trust_remote_code": settings.trust_remote_code, **loading(settings), "dtype": model.dtype}
    return pretrained(model_class, name, **how)[0]


def from_pretrained(model_class: str, name: str, revision: str = "main") -> PreTrainedModel:
    """The model of a folder or Hub id, whole, in evaluation mode: to be asked, not to be trained.

    Safetensors only, in the numbers that were saved, and no code of the repository is run.

    Args:
        model_class: ``"module:Class"``.

    Raises:
        InputError: there is none, it is damaged, or it lacks weights.
    """
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    model, missing, unused = pretrained(resolve(model_class), name, dtype="auto", **source)
    require_weights(model, missing, unused, name, training=False)
    return model.eval()


def require_weights(
    model: PreTrainedModel, missing: Sequence[str], unused: Sequence[str], checkpoint: str, *, training: bool = True
) -> None:
    """Refuse a model that computes something else than was trained, without some weights or with new ones.

    Args:
        training: whether new weights may be learned, so that ``--allow_new_weights`` is there for it.
    """
    same = "take weights and configuration from the same model"
    if missing:
        raise InputError(
            f"'{checkpoint}' lacks {len(missing)} of the model's weights, such as {missing[0]}",
            "--allow_new_weights starts these from random numbers" if training else same,
        )
    inside = [name for name in unused if _belongs_inside(model, name)]
    if inside:
        raise InputError(
            f"the model has no place for {len(inside)} of the weights in '{checkpoint}', such as {inside[0]}",
            same + "; --allow_new_weights leaves these weights out" * training,
        )


def _belongs_inside(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight without a place in the model belongs to a part that the model computes with.

    A whole module at the top, such as a pooler or another task's head, is none of this task's business.
    A layer, a module in a layer, or a parameter of a module that is there had its share in what was trained.
    """
    base: torch.nn.Module = model.base_model
    # Checkpoints of a base model lack the prefix of their names.
    holder, lacking = min((_holder(start, name.split(".")) for start in (model, base)), key=lambda found: len(found[1]))
    if len(lacking) > 1:
        return holder is not model and holder is not base and not _groups_heads(model, holder)
    # A buffer that the checkpoint has as well is one that the model computes for itself.
    return lacking[0] not in dict(holder.named_buffers(recurse=False)) and not OLD_MASK.search(name)


def _holder(start: torch.nn.Module, path: list[str]) -> tuple[torch.nn.Module, list[str]]:
    """The innermost module on the path to a weight, and what of the path is not there."""
    child = dict(start.named_children()).get(path[0]) if len(path) > 1 else None
    return (start, path) if child is None else _holder(child, path[1:])


def _groups_heads(model: PreTrainedModel, module: torch.nn.Module) -> bool:
    """Whether a module at the top only wraps this task's head, where others may have lain beside it.

    BERT's family keeps the head of masked language modelling in ``cls.predictions`` and that of next
    sentences in ``cls.seq_relationship``. A list of layers is no wrapper, though it may hold only one.
    """
    at_top = any(child is module for child in model.children())
    alone = len(list(module.children())) == 1 and not list(module.parameters(recurse=False))
    return at_top and alone and not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential))


def _grow(model: PreTrainedModel, tokenizer: Any, added: AddedTokens) -> int:
    """Make room for the tokenizer's tokens; never shrinks, as checkpoints pad their vocabulary."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return 0
    rows = rows_of(model)
    if (known := len(tokenizer) - len(added.pieces)) > rows:
        make_room(model, known)
    if added.pieces and len(tokenizer) > rows:
        make_room(model, len(tokenizer), mean_resizing=False)
    start_rows(model, added)
    return max(0, len(tokenizer) - rows)
