"""The declarations of plugins: recipes, architectures, word segmenters, blocks, media, options, hooks."""

from lmtasks.api.architecture import Architecture
from lmtasks.api.blocks import Blocks, stack, template_tokens
from lmtasks.api.format import Format, Reading
from lmtasks.api.hookspecs import hookimpl
from lmtasks.api.medium import Documents, Examples, Layout, Medium, ReadSettings
from lmtasks.api.options import NUMBER, Option, convert, describe, option, options_of
from lmtasks.api.recipe import (
    API_VERSION,
    EVALUATION_SEED,
    NAME,
    TOKENIZER,
    Batch,
    BlockOptions,
    Collate,
    Example,
    LossSums,
    Recipe,
    Starter,
    TokenizerSpec,
)
from lmtasks.api.references import HEAVY, resolve, source_of
from lmtasks.api.word_segmenter import UNICODE, WordSegmenter

__all__ = [
    "API_VERSION",
    "EVALUATION_SEED",
    "HEAVY",
    "NAME",
    "NUMBER",
    "TOKENIZER",
    "UNICODE",
    "Architecture",
    "Batch",
    "BlockOptions",
    "Blocks",
    "Collate",
    "Documents",
    "Example",
    "Examples",
    "Format",
    "Layout",
    "LossSums",
    "Medium",
    "Option",
    "ReadSettings",
    "Reading",
    "Recipe",
    "Starter",
    "TokenizerSpec",
    "WordSegmenter",
    "convert",
    "describe",
    "hookimpl",
    "option",
    "options_of",
    "resolve",
    "source_of",
    "stack",
    "template_tokens",
]
