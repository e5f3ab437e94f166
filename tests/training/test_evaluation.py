"""Evaluation: every target once, the same figure however it is batched, and nothing touched."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from evaluate import Metric, MetricInfo
from tiny_shape import TINY
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from two_terms import TWO_TERMS, TwoTermsOptions

from lmtasks import Blocks, Recipe, evaluate
from lmtasks.api import EVALUATION_SEED, knowing
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions, hide
from lmtasks.data.corpus import Split
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.encode import encode
from lmtasks.data.text.packing import Packed, cut
from lmtasks.data.text.tokenize import Stream
from lmtasks.errors import RunError
from lmtasks.models.tokenizer import train_tokenizer
from lmtasks.training.evaluation import evaluate_model

BYTES = 5000


def packed_rows(rows: np.ndarray, size: int = BYTES, tail: int = 0) -> Packed:
    """A text of so many bytes whose blocks are these rows, with a few tokens left over."""
    ids = np.append(rows.ravel(), np.zeros(tail)).astype(np.int32)
    stream = Stream(ids, np.zeros(1, np.int64), rows=len(rows), bytes=size)
    return cut(stream, Blocks(size=rows.shape[1]))


def blocks_of(count: int, size: int = 16, *, vocabulary: int = 400) -> Packed:
    """Random blocks, some tokens far more frequent than others."""
    draw = np.random.default_rng(3)
    return packed_rows((vocabulary * draw.random((count, size)) ** 3).astype(np.int32), tail=5 if size > 5 else 0)


def rows_of(packed: Packed) -> list[np.ndarray]:
    return [packed.example(number)["input_ids"] for number in range(len(packed))]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, what it is evaluated on, and with which recipe."""

    recipe: Recipe
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    packed: Packed

    def figures(self, batch_size: int = 8, packed: Packed | None = None, **more: Any) -> dict[str, float]:
        options = MaskedLMOptions() if self.recipe is MASKED_LM else CausalLMOptions()
        collate = self.recipe.collator(self.tokenizer, options, False)
        examples = ExampleDataset(packed or self.packed, EVALUATION_SEED)
        return evaluate_model(self.model, self.recipe, examples, collate, batch_size, **more)


@pytest.fixture
def masked(model_folders: dict[str, Path], masked_tokenizer: PreTrainedTokenizerBase) -> Case:
    model = AutoModelForMaskedLM.from_pretrained(model_folders["roberta"])
    return Case(MASKED_LM, model, masked_tokenizer, blocks_of(37))


@pytest.fixture
def causal(model_folders: dict[str, Path], causal_tokenizer: PreTrainedTokenizerBase) -> Case:
    model = AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    return Case(CAUSAL_LM, model, causal_tokenizer, blocks_of(37))


@pytest.fixture(params=["masked", "causal"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def told_one_by_one(
    model: PreTrainedModel, questions: list[tuple[np.ndarray, list[tuple[int, int]]]]
) -> tuple[list[float], int]:
    """Losses and right answers, from (inputs, [(place to look at, token to be told)]) one example after the other."""
    losses, correct = [], 0
    for ids, asked in questions:
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].double()
        for place, token in asked:
            losses.append(float(torch.logsumexp(logits[place], 0) - logits[place, token]))
            correct += int(logits[place].argmax()) == token
    return losses, correct


def causal_questions(packed: Packed) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
    return [(row, [(place - 1, int(row[place])) for place in range(1, len(row))]) for row in rows_of(packed)]


def masked_questions(packed: Packed, tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    special = np.asarray(tokenizer.all_special_ids)
    words = np.setdiff1d(np.arange(len(tokenizer)), special)
    questions = []
    for number, row in enumerate(rows_of(packed)):
        example = {"input_ids": row, "seed": (0, 0, number)}
        ids, labels = hide(example, 0.15, special, words, tokenizer.mask_token_id)
        questions.append((ids, [(place, int(row[place])) for place in np.flatnonzero(labels != -100)]))
    return questions


def test_figures_are_those_of_the_definition(case: Case) -> None:
    causal = case.recipe is CAUSAL_LM
    questions = causal_questions(case.packed) if causal else masked_questions(case.packed, case.tokenizer)
    losses, correct = told_one_by_one(case.model, questions)
    loss = math.fsum(losses) / len(losses)
    figures = case.figures()
    assert figures["loss"] == pytest.approx(loss, rel=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert figures["targets"] == len(losses)
    assert figures["accuracy"] == correct / len(losses)
    assert figures["bits_per_byte"] == pytest.approx(loss / math.log(2) * case.packed.tokens / BYTES, rel=1e-6)


def test_number_of_targets_by_hand(causal: Case) -> None:
    assert causal.figures()["targets"] == 37 * 15


def test_batch_size_does_not_change_the_figures(case: Case) -> None:
    one, *others = (case.figures(batch_size) for batch_size in (1, 3, 8, 64))
    for other in others:
        # The model's own float32 arithmetic varies with the shape of a batch, in the seventh digit.
        assert other == pytest.approx(one, rel=2e-6)
        assert (other["targets"], other["accuracy"]) == (one["targets"], one["accuracy"])


def test_batch_size_does_not_change_the_figures_of_an_exact_model(case: Case) -> None:
    exact = dataclasses.replace(case, model=case.model.double())
    one, *others = (exact.figures(batch_size) for batch_size in (1, 3, 8, 64))
    for other in others:
        # token_sums takes logits as float32, whose last digit is all that may still differ.
        assert other == pytest.approx(one, rel=1e-9)


RAGGED_LENGTHS = (16, 3, 9, 1, 12, 7, 16, 2, 5, 14, 11, 4, 8)


def ragged(lengths: Iterable[int]) -> Packed:
    """Examples of these lengths, each a document of its own, with some tokens far more frequent than others."""
    sizes = np.asarray(list(lengths))
    ids = (400 * np.random.default_rng(3).random(sizes.sum()) ** 3).astype(np.int32)
    stream = Stream(ids, np.cumsum(sizes) - sizes, rows=len(sizes), bytes=BYTES)
    return cut(stream, Blocks(size=int(sizes.max()), line_by_line=True))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("kind", ["roberta", "bert", "gpt2", "llama"])
def test_padding_does_not_change_the_figures(kind: str, padding_side: str, model_folders: dict[str, Path]) -> None:
    """Batches of examples of different lengths say what the examples say one by one, without any padding."""
    causal = kind in ("gpt2", "llama")
    model_class = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    # In float32 a model's own sums vary with the shape of a batch, in the seventh digit; in float64 what is
    # left is the last digit of the logits, which token_sums takes as float32.
    model = model_class.from_pretrained(model_folders[kind]).double()
    tokenizer = AutoTokenizer.from_pretrained(model_folders[kind], padding_side=padding_side)
    case = Case(CAUSAL_LM if causal else MASKED_LM, model, tokenizer, ragged(RAGGED_LENGTHS))
    assert tuple(map(len, rows_of(case.packed))) == RAGGED_LENGTHS
    questions = causal_questions(case.packed) if causal else masked_questions(case.packed, tokenizer)
    losses, correct = told_one_by_one(model, questions)
    expected = math.fsum(losses) / len(losses)

    one, *others = (case.figures(batch_size) for batch_size in (1, 3, 8, 64))
    assert one["loss"] == pytest.approx(expected, rel=1e-6)
    assert (one["targets"], one["accuracy"]) == (len(losses), correct / len(losses))
    assert {"perplexity", "unigram_loss", "bits_per_byte"} <= one.keys()
    for other in others:
        assert other == pytest.approx(one, rel=1e-6)


def test_two_evaluations_are_equal_to_the_last_digit(case: Case) -> None:
    assert case.figures() == case.figures()


def test_unigram_loss_is_the_entropy_of_the_text(causal: Case) -> None:
    # Three quarters of token 7, one quarter of token 9; every block starts with 7, which is no target.
    rows = np.array([[7, 7, 7, 9]] * 8, np.int32)
    figures = causal.figures(packed=packed_rows(rows, 64))
    expected = -(2 * math.log(3 / 4) + math.log(1 / 4)) / 3
    assert figures["unigram_loss"] == pytest.approx(expected, rel=1e-12)


# --- what counts: the tokens of the text that could be targets ---


TEXTS = [
    "One document.",
    "Ein zweites, für die Größe: 火星",
    "a</s>b",
    "",
    "The last of them, which is longer than the others.",
]
SIZE = 17


class Way(NamedTuple):
    """A way to look at the texts.

    Args:
        start, end: what stands around each document in the stream, by the definition of the recipe.
        alone: whether documents see nothing of each other.
    """

    recipe: Recipe
    start: list[str]
    end: list[str]
    alone: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


LINES, APART = {"line_by_line": True}, {"isolate_documents": True}
WAYS = {
    "masked": Way(MASKED_LM, [], []),
    "masked, isolated": Way(MASKED_LM, ["<s>"], ["</s>"], True, APART),
    "masked, lines": Way(MASKED_LM, [], [], True, LINES),
    "causal": Way(CAUSAL_LM, [], ["</s>"]),
    "causal, isolated": Way(CAUSAL_LM, [], ["</s>"], True, APART),
    "causal, lines": Way(CAUSAL_LM, [], ["</s>"], True, LINES),
    "causal, <s>": Way(CAUSAL_LM, ["<s>"], ["</s>"]),
    "causal, <s>, isolated": Way(CAUSAL_LM, ["<s>"], ["</s>"], True, APART),
    "causal, <s>, lines": Way(CAUSAL_LM, ["<s>"], ["</s>"], True, LINES),
    # OPT's tokenizer: a document begins with the token that ends one.
    "causal, </s>": Way(CAUSAL_LM, ["</s>"], ["</s>"]),
    "causal, </s>, isolated": Way(CAUSAL_LM, ["</s>"], ["</s>"], True, APART),
}


@pytest.fixture(scope="session")
def framing(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Way], Path]:
    """A model whose tokenizer puts so much around a text."""
    assert MASKED_LM.tokenizer is not None

    def made(way: Way) -> Path:
        template = " ".join([*way.start, "$A", *way.end]) if way.recipe is CAUSAL_LM else "<s> $A </s>"
        spec = dataclasses.replace(MASKED_LM.tokenizer, template=template)
        tokenizer = train_tokenizer([documents], 400, spec)
        kind = "roberta" if way.recipe is MASKED_LM else "gpt2"
        config = AutoConfig.for_model(kind, **{**TINY, "n_positions": 64}, vocab_size=len(tokenizer), pad_token_id=1)
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("framing")
        auto = AutoModelForMaskedLM if way.recipe is MASKED_LM else AutoModelForCausalLM
        auto.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return made


class Token(NamedTuple):
    """A token of the stream.

    Args:
        could: whether it could be a target, wherever blocks begin.
        first: whether a document begins with it.
    """

    id: int
    could: bool
    first: bool


def pieces_of(tokenizer: PreTrainedTokenizerBase, way: Way) -> list[list[Token]]:
    """What is cut on its own: each document, or all of them."""
    masked = way.recipe is MASKED_LM
    special = set(tokenizer.all_special_ids) if masked else set()
    start, end = (tokenizer.convert_tokens_to_ids(frame) for frame in (way.start, way.end))
    pieces = []
    for number, text in enumerate(text for text in TEXTS if text):
        ids = [*start, *tokenizer.encode(text, add_special_tokens=False), *end]
        # What begins a document that sees nothing before it is given, not guessed.
        given = 1 if start and not masked and (way.alone or number == 0) else 0
        pieces.append([Token(token, at >= given and token not in special, at == 0) for at, token in enumerate(ids)])
    return pieces if "line_by_line" in way.options else [[token for piece in pieces for token in piece]]


def asked(tokenizer: PreTrainedTokenizerBase, way: Way, number: int, block: list[Token], framed: bool) -> list[int]:
    """The targets of a block, by the definition of the recipe."""
    ids = [token.id for token in block]
    if way.recipe is CAUSAL_LM:
        apart = "isolate_documents" in way.options
        return [token.id for token in block[1:] if not (apart and token.first)]
    special = np.asarray(tokenizer.all_special_ids)
    words = np.setdiff1d(np.arange(len(tokenizer)), special)
    row = np.asarray([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] if framed else ids)
    _, labels = hide({"input_ids": row, "seed": (0, 0, number)}, 0.15, special, words, tokenizer.mask_token_id)
    return labels[labels != -100].tolist()


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.parametrize("name", WAYS)
def test_bits_per_byte_and_baseline_are_of_the_tokens_that_could_be_targets(
    name: str, most: int | None, framing: Callable[[Way], Path]
) -> None:
    way = WAYS[name]
    folder = framing(way)
    figures = evaluate(folder, eval_dataset=TEXTS, block_size=SIZE, max_eval_samples=most, **way.options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = pieces_of(tokenizer, way)
    possible = sum(token.could for piece in pieces for token in piece)
    size = sum(len(text.encode()) for text in TEXTS)
    assert figures["bits_per_byte"] == pytest.approx(figures["eval_loss"] / math.log(2) * possible / size, rel=1e-9)

    framed = way.recipe is MASKED_LM and "isolate_documents" not in way.options
    body = SIZE - 2 if framed else SIZE
    blocks = [piece[at : at + body] for piece in pieces for at in range(0, len(piece), body)]
    # The last tokens of a stream, less than a block, are left over.
    blocks = [block for block in blocks if len(pieces) > 1 or len(block) == body][:most]
    assert sum(map(len, blocks)) < sum(map(len, pieces)) or len(pieces) > 1
    seen = Counter(token.id for block in blocks for token in block if token.could)
    targets = [token for number, block in enumerate(blocks) for token in asked(tokenizer, way, number, block, framed)]
    assert figures["eval_targets"] == len(targets)
    baseline = -sum(math.log(seen[token] / seen.total()) for token in targets) / len(targets)
    assert figures["unigram_loss"] == pytest.approx(baseline, rel=1e-9)


def test_a_text_file_has_one_beginning_that_does_not_count(framing: Callable[[Way], Path], tmp_path: Path) -> None:
    text = "\n".join(text for text in TEXTS if text) + "\n"
    (tmp_path / "text.txt").write_text(text)
    folder = framing(WAYS["causal, <s>"])
    figures = evaluate(folder, validation_file=str(tmp_path / "text.txt"), block_size=SIZE)
    tokens = len(AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)) + 1
    expected = figures["eval_loss"] / math.log(2) * tokens / len(text.encode())
    assert figures["bits_per_byte"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("view", ["pseudo_perplexity", "stride"])
def test_the_views_of_a_text_count_the_same_tokens(view: str, framing: Callable[[Way], Path]) -> None:
    way = WAYS["masked, isolated" if view == "pseudo_perplexity" else "causal, <s>, isolated"]
    asked_for = {"pseudo_perplexity": True} if view == "pseudo_perplexity" else {"stride": 5}
    figures = evaluate(framing(way), eval_dataset=TEXTS, block_size=SIZE, **asked_for, **way.options)
    named = "pseudo" if view == "pseudo_perplexity" else "sliding"
    tokenizer = AutoTokenizer.from_pretrained(framing(way))
    ids = [token for text in TEXTS for token in tokenizer.encode(text, add_special_tokens=False)]
    told = [token for token in ids if way.recipe is CAUSAL_LM or token not in tokenizer.all_special_ids]
    assert figures[f"{named}_targets"] == len(told), "the text, and nothing that stands around documents"
    bits = -figures[f"{named}_log_likelihood"] / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    assert figures[f"{named}_bits_per_byte"] == pytest.approx(bits, rel=1e-9)


@pytest.mark.parametrize("name", WAYS)
def test_what_counts_is_what_some_epoch_makes_a_target(name: str, framing: Callable[[Way], Path]) -> None:
    """Measured: the labels of many epochs, with blocks that begin elsewhere each time."""
    way = WAYS[name]
    tokenizer = AutoTokenizer.from_pretrained(framing(way))
    split = Split(datasets.Dataset.from_dict({"text": [text for text in TEXTS if text]}), ("text",), True)
    ever: set[int] = set()
    for size in range(SIZE, SIZE + 4):
        options = way.recipe.options(block_size=size, **way.options)
        blocks = way.recipe.preprocess(tokenizer, options)
        collate = way.recipe.collator(tokenizer, options, True)
        packed = encode("test", split, tokenizer, blocks)
        for number, epoch in itertools.product(range(len(packed)), range(60)):
            labels = collate([{**packed.example(number), "seed": (0, epoch, number)}])["labels"][0]
            places = np.flatnonzero(labels.numpy() != -100) - len(blocks.start) + packed.places(number)[0]
            ever |= set(places.tolist())
    tokens = [token for piece in pieces_of(tokenizer, way) for token in piece]
    could = {place for place, token in enumerate(tokens) if token.could}
    # Only the text's own tokens with nothing before them, and what no block has, are left out by where they stand.
    left = set() if "line_by_line" in way.options else set(range(len(tokens) - SIZE - 4, len(tokens)))
    if way.recipe is CAUSAL_LM:
        left |= {place for place, token in enumerate(tokens) if token.first and (way.alone or place == 0)}
    assert ever <= could
    assert could - ever <= left


def test_bits_per_byte_by_hand(causal: Case) -> None:
    class Sure(torch.nn.Module):
        """Gives every one of 4 tokens the same chance: ln 4 nats, 2 bits a token."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4))

        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": self.weight.expand(*input_ids.shape, 4)})

    rows = np.array([[0, 1, 2, 3]] * 8, np.int32)
    case = dataclasses.replace(causal, model=Sure())
    figures = case.figures(packed=packed_rows(rows, 128))
    assert figures["bits_per_byte"] == pytest.approx(2 * 32 / 128, rel=1e-6)
    assert figures["perplexity"] == pytest.approx(4, rel=1e-6)
    assert figures["accuracy"] == 0.0, "the first of equals is token 0, which is never asked for"
    assert "bits_per_byte" not in case.figures(packed=packed_rows(rows, 0)), "no text, no bytes"


def test_progress_counts_the_examples(causal: Case) -> None:
    heard: list[int] = []
    causal.figures(16, progress=heard.append)
    assert heard == [16, 32, 37]


@pytest.mark.parametrize("training", [True, False])
def test_mode_of_the_model_is_restored_and_dropout_is_off(training: bool, case: Case) -> None:
    case.model.train(training)
    figures = case.figures()
    assert case.model.training is training
    assert figures == case.figures()


def test_weights_gradients_and_random_state_are_left_alone(case: Case) -> None:
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].tolist()
    case.figures()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpys
    assert all(torch.equal(value, before[name]) for name, value in case.model.state_dict().items())
    assert all(parameter.grad is None for parameter in case.model.parameters())


def test_evaluation_masks_are_the_same_in_every_epoch_of_every_run(masked: Case) -> None:
    examples = ExampleDataset(masked.packed, EVALUATION_SEED)
    assert [examples[number]["seed"] for number in (0, 36)] == [(0, 0, 0), (0, 0, 36)]
    torch.manual_seed(1)
    one = masked.figures()
    torch.manual_seed(2)
    assert masked.figures() == one


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_loss_that_is_no_number_is_a_failed_run(poison: float, case: Case) -> None:
    with torch.no_grad():
        next(case.model.parameters()).fill_(poison)
    with pytest.raises(RunError, match=r"the evaluation loss is (nan|inf)") as caught:
        case.figures()
    assert caught.value.exit_code == 3


def test_one_bad_batch_is_enough(causal: Case) -> None:
    with torch.no_grad():
        causal.model.get_input_embeddings().weight[int(rows_of(causal.packed)[20][3])] = math.nan
    with pytest.raises(RunError, match="the evaluation loss is nan"):
        causal.figures(1)


def test_nothing_to_predict_is_a_failed_run(causal: Case) -> None:
    with pytest.raises(RunError, match="nothing to predict"):
        causal.figures(packed=blocks_of(3, size=1))


def test_loss_without_further_sums_is_enough_without_accuracy(causal: Case) -> None:
    def plain(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        return CAUSAL_LM.loss(model, batch)[:2]

    recipe = dataclasses.replace(CAUSAL_LM, loss=plain, metrics=("lmtasks.metrics:Perplexity",))
    figures = evaluate_model(causal.model, recipe, ExampleDataset(causal.packed, 0), collator(causal, recipe), 8)
    assert "accuracy" not in figures
    assert figures["loss"] == causal.figures()["loss"]


def collator(case: Case, recipe: Recipe) -> Callable[..., Any]:
    return recipe.collator(case.tokenizer, CausalLMOptions(), False)


# --- terms ---


def two_terms(**values: Any) -> Recipe:
    """two-terms as a run has it, with the options in its loss."""
    options = TwoTermsOptions(**values)
    return dataclasses.replace(TWO_TERMS, loss=knowing(TWO_TERMS.loss, options))


def figures_of_terms(case: Case, recipe: Recipe, batch_size: int = 8) -> dict[str, float]:
    collate = recipe.collator(case.tokenizer, TwoTermsOptions(), False)
    return evaluate_model(case.model, recipe, ExampleDataset(case.packed, EVALUATION_SEED), collate, batch_size)


def test_each_term_has_its_mean_and_the_loss_is_their_weighted_sum(masked: Case) -> None:
    questions = masked_questions(masked.packed, masked.tokenizer)
    losses, _ = told_one_by_one(masked.model, questions)
    sizes: list[float] = []
    for ids, _ in questions:
        with torch.no_grad():
            logits = masked.model.eval()(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].double()
        sizes += [float(row.exp().sum().log() ** 2) for row in logits]
    hidden, size = math.fsum(losses) / len(losses), math.fsum(sizes) / len(sizes)
    plain = masked.figures()
    for batch_size in (1, 8):
        figures = figures_of_terms(masked, two_terms(size_weight=3.0), batch_size)
        assert figures["hidden_loss"] == pytest.approx(hidden, rel=1e-6)
        assert figures["size_loss"] == pytest.approx(size, rel=1e-6)
        assert figures["loss"] == pytest.approx(hidden + 3 * size, rel=1e-6)
        for name in ("perplexity", "accuracy", "targets", "unigram_loss", "bits_per_byte"):
            assert figures[name] == pytest.approx(plain[name], rel=1e-6), name


def test_a_first_term_of_which_only_the_number_is_known_has_no_baseline(masked: Case) -> None:
    def counted(batch: dict[str, Any]) -> dict[str, int]:
        return {"hidden": int((batch["labels"] != -100).sum()), "size": batch["labels"].numel()}

    figures = figures_of_terms(masked, dataclasses.replace(two_terms(), targets=counted))
    assert figures.keys() == masked.figures().keys() - {"unigram_loss"} | {"hidden_loss", "size_loss"}


def test_metrics_get_the_sums_of_each_term(masked: Case) -> None:
    recipe = dataclasses.replace(two_terms(), metrics=("test_evaluation:RootOfSize",))
    figures = figures_of_terms(masked, recipe)
    assert figures["root_of_size"] == pytest.approx(math.sqrt(figures["size_loss"]), rel=1e-12)


class RootOfSize(Metric):
    def _info(self) -> MetricInfo:
        kinds = {"size_loss": datasets.Value("float64"), "size_targets": datasets.Value("int64")}
        return MetricInfo(description="", citation="", features=datasets.Features(kinds))

    def _compute(self, size_loss: list[float], size_targets: list[int]) -> dict[str, float]:
        return {"root_of_size": math.sqrt(math.fsum(size_loss) / sum(size_targets))}


def test_a_weight_that_changes_from_batch_to_batch_is_no_weight(masked: Case) -> None:
    def loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        terms, more = TWO_TERMS.loss(model, batch, TwoTermsOptions())
        return {**terms, "size": dataclasses.replace(terms["size"], weight=float(len(batch["labels"])))}, more

    with pytest.raises(RunError, match="the weight of the term 'size' changes from batch to batch"):
        figures_of_terms(masked, dataclasses.replace(TWO_TERMS, loss=loss))


# --- examples ---


def test_example_carries_seed_epoch_and_number() -> None:
    examples = ExampleDataset(blocks_of(4), seed=9)
    assert len(examples) == 4
    assert examples[2]["seed"] == (9, 0, 2)
    examples.start_epoch(3)
    assert examples[2]["seed"] == (9, 3, 2)
    assert examples[2]["input_ids"].tolist() == rows_of(blocks_of(4))[2].tolist()


def test_what_tells_no_words_is_not_measured_by_them(masked: Case) -> None:
    """Nats of a class are none of a byte's, though class 1 is a token's number, too."""
    recipe = dataclasses.replace(MASKED_LM, vocabulary=False)
    collate = recipe.collator(masked.tokenizer, MaskedLMOptions(), False)
    examples = ExampleDataset(masked.packed, EVALUATION_SEED)
    figures, plain = evaluate_model(masked.model, recipe, examples, collate, 8), masked.figures()
    assert plain == figures | {name: plain[name] for name in ("bits_per_byte", "unigram_loss")}
    assert {"bits_per_byte", "unigram_loss"}.isdisjoint(figures)
