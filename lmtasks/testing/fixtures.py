"""Fixtures for the tests of plugins. pytest finds this module by itself; loading it imports nothing but pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lmtasks import Architecture, Catalog, Recipe, Run
    from lmtasks.testing.case import Case


@pytest.fixture
def lmtasks_corpus() -> list[str]:
    """Sixty short documents, always the same."""
    from lmtasks.testing.specimens import corpus

    return corpus()


@pytest.fixture
def lmtasks_tokenizer() -> Callable[[Recipe], PreTrainedTokenizerBase]:
    """``lmtasks_tokenizer(RECIPE)``: a tiny tokenizer, trained on the corpus, with the tokens that the recipe needs."""
    from lmtasks.testing.specimens import tokenizer_for

    return tokenizer_for


@pytest.fixture
def _lmtasks_case() -> Iterator[Callable[..., Case]]:
    """The case of a recipe and a model, until the test ends."""
    from lmtasks.testing.set_up import case_of

    with ExitStack() as stack:
        yield lambda recipe, model=None: stack.enter_context(case_of(recipe, model))


@pytest.fixture
def lmtasks_model(_lmtasks_case: Callable[..., Case]) -> Callable[..., PreTrainedModel]:
    """``lmtasks_model(RECIPE)`` or ``lmtasks_model(RECIPE, "gpt2")``: a tiny model, always with the same weights."""
    return lambda *what: _lmtasks_case(*what).model()


@pytest.fixture
def lmtasks_catalog() -> Iterator[Callable[..., Catalog]]:
    """``lmtasks_catalog(recipes=[...], architectures=[...])``: they count as installed until the test ends."""
    from lmtasks.testing.plugins import installed

    with ExitStack() as stack:
        yield lambda **declared: stack.enter_context(installed(**declared))


@pytest.fixture
def lmtasks_run(tmp_path: Path, _lmtasks_case: Callable[..., Case]) -> Callable[..., Run]:
    """``lmtasks_run(RECIPE, max_steps=20)``: a finished run of a tiny model in ``tmp_path``, with any options."""

    def run(recipe: Recipe, model: str | Architecture | None = None, **values: Any) -> Run:
        number = len(list(tmp_path.glob("run*")))
        folder = tmp_path / (f"run-{number + 1}" if number else "run")
        return _lmtasks_case(recipe, model).trained(folder, **values)

    return run
