"""The declarations of plugins: recipes, architectures, engines, launchers, extensions, media, options, hooks."""

from lmtasks.api.architecture import Architecture
from lmtasks.api.blocks import Blocks, stack, template_tokens
from lmtasks.api.engine import DEFAULT_ENGINE, Engine
from lmtasks.api.extension import Command, Extension
from lmtasks.api.format import Format, Reading
from lmtasks.api.frozen import Frozen
from lmtasks.api.hookspecs import hookimpl
from lmtasks.api.inputs import model_inputs, token_count, token_mask, unwrapped
from lmtasks.api.launcher import Handle, Job, Launcher
from lmtasks.api.losses import (
    SOLE,
    LossSums,
    LossTerm,
    has_targets,
    knowing,
    loss_terms,
    require_counted,
    target_counts,
    target_ids,
    weigh,
    weighted_mean,
    weighted_sum,
)
from lmtasks.api.medium import Documents, Examples, Layout, Medium, ReadSettings
from lmtasks.api.options import NUMBER, Option, convert, describe, option, options_of
from lmtasks.api.recipe import (
    EVALUATION_SEED,
    NAME,
    TOKENIZER,
    Batch,
    BlockOptions,
    Collate,
    Example,
    Recipe,
    Starter,
    TokenizerSpec,
)
from lmtasks.api.references import HEAVY, resolve, source_of
from lmtasks.api.returns import BATCH, CALLBACKS, EXIT_CODE, RETURNS, SUMS, Return, kind, of_term, wrong_sums
from lmtasks.api.sums import Sums, token_sums
from lmtasks.api.version import API_VERSION
from lmtasks.api.word_segmenter import UNICODE, WordSegmenter

__all__ = [
    "API_VERSION",
    "BATCH",
    "CALLBACKS",
    "DEFAULT_ENGINE",
    "EVALUATION_SEED",
    "EXIT_CODE",
    "HEAVY",
    "NAME",
    "NUMBER",
    "RETURNS",
    "SOLE",
    "SUMS",
    "TOKENIZER",
    "UNICODE",
    "Architecture",
    "Batch",
    "BlockOptions",
    "Blocks",
    "Collate",
    "Command",
    "Documents",
    "Engine",
    "Example",
    "Examples",
    "Extension",
    "Format",
    "Frozen",
    "Handle",
    "Job",
    "Launcher",
    "Layout",
    "LossSums",
    "LossTerm",
    "Medium",
    "Option",
    "ReadSettings",
    "Reading",
    "Recipe",
    "Return",
    "Starter",
    "Sums",
    "TokenizerSpec",
    "WordSegmenter",
    "convert",
    "describe",
    "has_targets",
    "hookimpl",
    "kind",
    "knowing",
    "loss_terms",
    "model_inputs",
    "of_term",
    "option",
    "options_of",
    "require_counted",
    "resolve",
    "source_of",
    "stack",
    "target_counts",
    "target_ids",
    "template_tokens",
    "token_count",
    "token_mask",
    "token_sums",
    "unwrapped",
    "weigh",
    "weighted_mean",
    "weighted_sum",
    "wrong_sums",
]
