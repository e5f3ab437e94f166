"""Scores of texts: what a model makes of each, by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmtasks.api import Recipe
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.run_folder import read_whole
from lmtasks.errors import InputError
from lmtasks.inference.fitting_recipe import installed_recipe
from lmtasks.inference.likelihood import Metric, Teller, Told
from lmtasks.inference.load import load_alone
from lmtasks.progress import say
from lmtasks.runs.own_loss import own_losses

Kind = Literal["log_likelihood", "pseudo_log_likelihood", "loss"]
"""What a score is: of a causal model, of a masked one, or of one with a loss of its own."""


@dataclass(frozen=True)
class TokenScore:
    """One token of a text: as the vocabulary has it, its id, and log p of it in nats."""

    token: str
    id: int
    log_likelihood: float


@dataclass(frozen=True)
class Score:
    """What a model makes of one text.

    Args:
        number: of the text, counting from 1.
        kind: ``log_likelihood``, what a causal model gives the text; or ``pseudo_log_likelihood``, where a masked one
            tells every token from all others, which is no probability of the text; or ``loss``, of any other recipe.
        value: that, in nats: the sum over all tokens; of a loss, the mean over its targets.
        tokens, characters, bytes, words: how long the text is; tokens that were told, bytes of UTF-8, words between
            spaces.
        correct: how many tokens the model would have guessed; None of a loss.
        windows: how many times the model had to begin, since it cannot take more at once.
        told: token by token, where that was asked for.
    """

    number: int
    kind: Kind
    value: float
    tokens: int
    characters: int
    bytes: int
    words: int
    correct: int | None
    windows: int
    told: tuple[TokenScore, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """The score as ``lmtasks score`` prints it."""
        sizes = {name: getattr(self, name) for name in ("tokens", "characters", "bytes", "words", "correct", "windows")}
        told = {} if self.told is None else {"told": [vars(one) for one in self.told]}
        known = {name: value for name, value in sizes.items() if value is not None}
        return {"number": self.number, self.kind: self.value, **known, **told}


@machine_failures()
def score(
    run_or_model: str | Path,
    texts: str | Sequence[str],
    *,
    recipe: str | None = None,
    revision: str = "main",
    batch_size: int = 16,
    max_length: int | None = None,
    pll_metric: Metric = "original",
    per_token: bool = False,
) -> Any:
    """A :class:`Score` for one text, or a list of them in the order of several: how likely the model finds each.

    Args:
        run_or_model: run folder, model folder or Hub id.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        revision: branch, tag or commit of a model on the Hub.
        batch_size: windows of a causal model at once; of a masked one, as many rows as have the tokens of so many of
            128. Changes the speed alone.
        max_length: tokens that the model gets at once at most; all that it can take when not given.
        pll_metric: of a masked model: ``original`` hides a token alone, ``within_word_l2r`` also what follows it in
            its word.
        per_token: tell each token, too.

    Raises:
        InputError: no such model, an empty text, or for a recipe that is neither causal nor fills masks, whose own
            loss is told instead, what means nothing to it.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    chosen = installed_recipe(str(run_or_model), recipe, revision)
    if likelihood_of(chosen):
        scorer = Scorer(run_or_model, recipe, revision, max_length, pll_metric)
        found = scorer.score(listed, batch_size=batch_size, per_token=per_token)
    else:
        asked = {"max_length": max_length, "per_token": per_token, "pll_metric": pll_metric != "original"}
        for name in (name for name, value in asked.items() if value):
            raise InputError(f"--{name} means nothing to the loss of {chosen.name}", f"leave --{name} out")
        found = _own(str(run_or_model), chosen, listed, revision)
    return found[0] if isinstance(texts, str) else found


def _own(name: str, recipe: Recipe, texts: Sequence[str], revision: str) -> list[Score]:
    """The losses of a recipe's own."""
    _require_texts(texts)
    losses = own_losses(name, recipe, texts, revision) if texts else []
    return [
        Score(number, "loss", loss, targets, len(text), len(text.encode()), len(words_of(text)), None, windows)
        for number, (text, (loss, targets, windows)) in enumerate(zip(texts, losses, strict=True), 1)
    ]


class Scorer:
    """A model that scores texts; see :func:`score`."""

    def __init__(
        self,
        run_or_model: str | Path,
        recipe: str | None = None,
        revision: str = "main",
        max_length: int | None = None,
        pll_metric: Metric = "original",
    ) -> None:
        name = str(run_or_model)
        if revision != "main" and Path(name).is_dir():
            raise InputError(f"--revision {revision}: the folder '{name}' has no revisions", "leave --revision out")
        self.recipe = installed_recipe(name, recipe, revision)
        self.kind = kind_of(self.recipe)
        if pll_metric != "original" and self.kind == "log_likelihood":
            raise InputError(
                f"--pll_metric {pll_metric} is about masked models, and {self.recipe.name} hides nothing",
                "leave --pll_metric out",
            )
        with read_whole(name):
            self.model, self.tokenizer = load_alone(name, self.recipe, revision)
        self.teller = Teller(self.model, self.tokenizer, self.recipe, max_length, pll_metric)

    @property
    def parameters(self) -> int:
        """The parameters of the model."""
        return sum(one.numel() for one in self.model.parameters())

    def score(self, texts: Sequence[str], *, batch_size: int = 16, per_token: bool = False) -> list[Score]:
        """The scores of texts, in their order."""
        _require_texts(texts)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}", "it is the number of windows at once, 1 or more")
        told = self.teller.tell(texts, batch_size) if texts else []
        if cut := sum(one.windows > 1 for one in told):
            how = "windows that go on from the last token before" if self.teller.causal else "pieces, each seen alone"
            some = "1 text is longer" if cut == 1 else f"{cut:,} texts are longer"
            say(f"{some} than the {self.teller.most} tokens that the model gets at once: told in {how}")
        return [self._score(*one, per_token) for one in zip(range(1, len(texts) + 1), texts, told, strict=True)]

    def _score(self, number: int, text: str, told: Told, per_token: bool) -> Score:
        return Score(
            number=number,
            kind=self.kind,
            value=float(told.likelihoods.sum()),
            tokens=len(told.ids),
            characters=len(text),
            bytes=len(text.encode()),
            words=len(words_of(text)),
            correct=int(told.right.sum()),
            windows=told.windows,
            told=tuple(self._tokens(told)) if per_token else None,
        )

    def _tokens(self, told: Told) -> Iterator[TokenScore]:
        names = self.tokenizer.convert_ids_to_tokens(told.ids.tolist())
        for name, token, value in zip(names, told.ids.tolist(), told.likelihoods.tolist(), strict=True):
            yield TokenScore(str(name), token, value)


def likelihood_of(recipe: Recipe) -> Kind | None:
    """The kind of likelihood that the recipe's models give a text; None where they tell no text token by token."""
    if recipe.medium or not recipe.vocabulary:
        return None
    if recipe.attention == "causal":
        return "log_likelihood"
    masks = recipe.attention == "bidirectional" and "mask_token" in recipe.required_tokens
    return "pseudo_log_likelihood" if masks else None


def kind_of(recipe: Recipe) -> Kind:
    """The same, where it is needed.

    Raises:
        InputError: there is none.
    """
    if kind := likelihood_of(recipe):
        return kind
    raise InputError(
        f"a {recipe.name} model has no likelihood of a text: its recipe is neither causal nor fills masks",
        "lmtasks evaluate RUN --validation_file FILE has the figures of its own loss",
    )


def words_of(text: str) -> list[str]:
    """What stands between spaces, as lm-evaluation-harness counts words; no words where there are no spaces."""
    return re.split(r"\s+", text)


def _require_texts(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"text {number} is no text but {type(text).__name__}", "give strings")
        if not text.strip():
            raise InputError(f"text {number} is empty", "leave it out: there is nothing to tell")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"text {number} is no Unicode text: {error.reason}", "convert it to UTF-8") from error
