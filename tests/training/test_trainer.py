"""Training: one division by the targets of the global batch, exact resumption, honest failure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_evaluation import blocks_of, packed_rows, ragged
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel
from two_terms import TWO_TERMS, TwoTermsOptions

from lmtasks import InputError, LossTerm, Recipe, evaluate, run
from lmtasks.api import EVALUATION_SEED, knowing
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.engines import TRAINER
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions
from lmtasks.cli.answers import figure_lines
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.errors import Interrupted, RunError
from lmtasks.models.lm_head import separate_head
from lmtasks.testing import installed
from lmtasks.training import dropout as cheap
from lmtasks.training.checkpoints import CheckpointCallback
from lmtasks.training.engines import carried_out
from lmtasks.training.evaluation import Collate, evaluate_model
from lmtasks.training.rehearsal import elsewhere
from lmtasks.training.signals import NUMBERS, Signals
from lmtasks.training.trained import Trained
from lmtasks.training.training import Training

ENCODERS = ("bert", "roberta", "distilbert", "electra", "modernbert", "bart")
DECODERS = ("gpt2", "llama", "xlnet")
KINDS = (*ENCODERS, *DECODERS)


@dataclasses.dataclass
class Result:
    """What came of a training."""

    done: Trained
    model: PreTrainedModel
    folder: Path

    @property
    def log(self) -> list[dict[str, Any]]:
        return read_log(self.folder)

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [entry for entry in self.log if "loss" in entry]


def latest(folder: Path) -> Path:
    return max((folder / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def recipe_for(kind: str) -> tuple[Recipe, Any]:
    return (MASKED_LM, MaskedLMOptions()) if kind in ENCODERS else (CAUSAL_LM, CausalLMOptions())


@dataclasses.dataclass
class School:
    """Trains tiny models."""

    folders: dict[str, Path]
    root: Path
    count: int = 0

    def model(self, kind: str, *, dropout: bool = False) -> PreTrainedModel:
        model_class = AutoModelForMaskedLM if kind in ENCODERS else AutoModelForCausalLM
        switches: dict[str, float] = {}
        if not dropout:
            config = model_class.from_pretrained(self.folders[kind]).config
            rates = (name for name, value in config.to_dict().items() if isinstance(value, float))
            switches = {name: 0.0 for name in rates if "drop" in name or name.endswith("pdrop")}
        return model_class.from_pretrained(self.folders[kind], **switches)

    def collate(self, kind: str, *, training: bool = True) -> Collate:
        recipe, options = recipe_for(kind)
        return recipe.collator(AutoTokenizer.from_pretrained(self.folders[kind]), options, training)

    def train(
        self,
        kind: str,
        *,
        packed: Packed | None = None,
        model: PreTrainedModel | None = None,
        dropout: bool = False,
        recipe: Recipe | None = None,
        wrap: Callable[[Collate], Collate] = lambda collate: collate,
        folder: Path | None = None,
        resume: Path | None = None,
        seed: int = 42,
        **values: Any,
    ) -> Result:
        self.count += 1
        folder = folder or self.root / str(self.count)
        folder.mkdir(exist_ok=True)
        given = {"learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "seed": seed, "report_to": "none"}
        arguments = training_arguments({**given, **values}, folder, steps=1)
        torch.manual_seed(seed)
        model = model or self.model(kind, dropout=dropout)
        examples = len(packed or blocks_of(8))
        tokenizer = AutoTokenizer.from_pretrained(self.folders[kind])
        training = Training(
            model,
            recipe or recipe_for(kind)[0],
            arguments,
            ExampleDataset(packed or blocks_of(8), seed),
            ExampleDataset(blocks_of(4), EVALUATION_SEED),
            (wrap(self.collate(kind)), self.collate(kind, training=False)),
            folder / "log.jsonl",
            resume,
            [CheckpointCallback(folder, tokenizer, {}, None, examples)],
        )
        return Result(carried_out(TRAINER, training, None), model, folder)

    def rehearse(
        self, model: PreTrainedModel, recipe: Recipe, arguments: Any, examples: ExampleDataset, collate: Collate
    ) -> None:
        """The Trainer's check of a training."""
        log = self.root / "none.jsonl"
        with elsewhere(Training(model, recipe, arguments, examples, examples, (collate, collate), log)) as training:
            TRAINER.check(training, None)


@pytest.fixture
def school(all_model_folders: dict[str, Path], tmp_path: Path) -> School:
    return School(all_model_folders, tmp_path)


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def distance(one: PreTrainedModel | dict[str, torch.Tensor], other: PreTrainedModel | dict[str, torch.Tensor]) -> float:
    """Euclidean, over all weights."""
    ours, theirs = (part if isinstance(part, dict) else weights(part) for part in (one, other))
    return math.sqrt(sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours))


def same(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- memory ---


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, whose allocator is left alone")
def test_memory_is_kept_from_step_to_step(school: School) -> None:
    resource = pytest.importorskip("resource")  # not everywhere
    faults: list[int] = []

    def wrap(collate: Collate) -> Collate:
        def collated(examples: list[Any]) -> Any:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones((256 >> len(faults)) << 18)  # MiB
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            return collate(examples)

        return collated

    school.train("bert", wrap=wrap, max_steps=2, per_device_train_batch_size=4)
    assert len(faults) == 2
    assert faults[1] < faults[0] / 20


def test_dropout_draws_cheaply_while_a_training_lasts(school: School) -> None:
    found: list[Any] = []

    def wrap(collate: Collate) -> Collate:
        def collated(examples: list[Any]) -> Any:
            found.append(torch.nn.functional.dropout)
            return collate(examples)

        return collated

    one, again = (school.train("bert", dropout=True, wrap=wrap, max_steps=2) for _ in range(2))
    assert set(found) == {cheap.dropout}
    assert torch.nn.functional.dropout is cheap.plain_dropout
    assert same(one.model, again.model)
    assert not same(one.model, school.train("bert", dropout=True, seed=7, max_steps=2).model)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_compiled_is_the_body_alone_and_learns_the_same(kind: str, school: School) -> None:
    ids = {"input_ids": torch.arange(5, 21)[None]}
    how = {"max_steps": 3, "per_device_train_batch_size": 4}
    plain = school.train(kind, **how)
    model, targets = school.model(kind), []
    assert separate_head(model, ids) is None
    features = model.lmtasks_head._features
    model.lmtasks_head._features = lambda *given: targets.append(len(given[1])) or features(*given)
    compiled = school.train(kind, model=model, torch_compile=True, torch_compile_backend="aot_eager", **how)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert len(targets) == 3  # the head of each step, on targets only, by way of what is not compiled
    assert distance(compiled.model, plain.model) < 1e-4 * distance(plain.model, school.model(kind))
    assert type(compiled.done.model) is type(plain.done.model)
    again = school.train(kind, **how)  # which does not ask for it
    assert same(again.model, plain.model)


# --- loss and gradient ---


RAGGED = ragged([16, 5, 9, 16, 3, 12, 7, 16])
"""Eight examples that have hardly a number of targets in common, so that no mean of means is right by chance."""


def first_step(model: PreTrainedModel, batches: list[dict[str, torch.Tensor]], causal: bool) -> tuple[float, float]:
    """Mean loss over all targets and norm of its gradient, one example and one target after the other."""
    losses = []
    for batch in batches:
        likelihood = model(input_ids=batch["input_ids"]).logits[0].log_softmax(-1)
        for place, label in enumerate(batch["labels"][0].tolist()):
            if label != -100:
                losses.append(-likelihood[place - 1 if causal else place, label])
    loss = torch.stack(losses).mean()
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return loss.item(), math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_accumulation_changes_nothing(kind: str, optim: str, school: School) -> None:
    """One global batch of eight in 1, 2, 4 and 8 parts, with the examples of a part padded to its longest."""
    examples = ExampleDataset(RAGGED, 42)
    alone = [school.collate(kind)([examples[number]]) for number in range(8)]
    loss, norm = first_step(school.model(kind).train(), alone, kind in DECODERS)
    how = {"packed": RAGGED, "max_steps": 5, "optim": optim, "learning_rate": 0.1 if optim == "sgd" else 1e-3}
    whole, *others = [
        school.train(kind, **how, gradient_accumulation_steps=parts, per_device_train_batch_size=8 // parts)
        for parts in (1, 2, 4, 8)
    ]
    for one in (whole, *others):
        assert [entry["step"] for entry in one.steps] == [1, 2, 3, 4, 5]
        assert one.steps[0]["loss"] == pytest.approx(loss, rel=1e-4)
        assert one.steps[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for one in others:
        for name in ("loss", "grad_norm"):
            assert [entry[name] for entry in one.steps] == pytest.approx(
                [entry[name] for entry in whole.steps], rel=1e-4
            ), name
    if optim == "sgd":  # Adam makes a step of full size of a gradient that is nothing but rounding
        start = weights(school.model(kind))
        for one in others:
            assert distance(one.model, whole.model) < 1e-4 * distance(whole.model, start)


def two_terms(weight: float) -> Recipe:
    """two-terms as a run has it, with the options in its loss."""
    return dataclasses.replace(TWO_TERMS, loss=knowing(TWO_TERMS.loss, TwoTermsOptions(size_weight=weight)))


def test_each_term_is_divided_by_its_own_count_and_weighed(school: School) -> None:
    """Mean over the hidden tokens, plus 50 times the mean over all tokens, whatever the parts of the global batch."""
    examples = ExampleDataset(RAGGED, 42)
    model, hidden, sizes = school.model("bert").train(), [], []
    for number in range(8):
        batch = school.collate("bert")([examples[number]])
        logits = model(input_ids=batch["input_ids"]).logits[0]
        asked = enumerate(batch["labels"][0].tolist())
        hidden += [-logits.log_softmax(-1)[place, label] for place, label in asked if label != -100]
        sizes += [row.exp().sum().log() ** 2 for row in logits]
    assert len(sizes) == 84
    assert len(hidden) < 42
    means = torch.stack(hidden).mean(), torch.stack(sizes).mean()
    (means[0] + 50 * means[1]).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = math.sqrt(sum(float((gradient.double() ** 2).sum()) for gradient in gradients))
    how = {"packed": RAGGED, "max_steps": 3, "optim": "sgd", "learning_rate": 1e-4, "recipe": two_terms(50)}
    whole, *others = [
        school.train("bert", **how, gradient_accumulation_steps=parts, per_device_train_batch_size=8 // parts)
        for parts in (1, 2, 8)
    ]
    first = whole.steps[0]
    assert first["hidden_loss"] == pytest.approx(means[0].item(), rel=1e-5)
    assert first["size_loss"] == pytest.approx(means[1].item(), rel=1e-5)
    assert first["loss"] == pytest.approx(means[0].item() + 50 * means[1].item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for other in others:
        for name in ("loss", "hidden_loss", "size_loss", "grad_norm"):
            assert [one[name] for one in other.steps] == pytest.approx([one[name] for one in whole.steps], rel=1e-4)


def test_means_of_terms_are_logged_over_the_steps_since_the_last_line(school: School) -> None:
    how = {"recipe": two_terms(2.0), "packed": RAGGED, "max_steps": 5, "per_device_train_batch_size": 4}
    each, some = (school.train("bert", **how, logging_steps=steps).log for steps in (1, 2))
    lines = [line for line in some if "hidden_loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    for name in ("hidden_loss", "size_loss"):
        single = [line[name] for line in each if name in line]
        expected = [(single[0] + single[1]) / 2, (single[2] + single[3]) / 2]
        assert [line[name] for line in lines] == pytest.approx(expected)
    for line in lines:
        assert line["loss"] == pytest.approx(line["hidden_loss"] + 2 * line["size_loss"], rel=1e-5)


def test_one_named_term_of_weight_one_is_the_pair_bit_for_bit(school: School) -> None:
    def named(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        total, count, more = MASKED_LM.loss(model, batch)
        return {"hidden": LossTerm(total, count)}, more

    recipe = dataclasses.replace(MASKED_LM, loss=named, targets=lambda batch: {"hidden": MASKED_LM.targets(batch)})
    how = {"packed": RAGGED, "max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    pair, term = school.train("bert", **how), school.train("bert", recipe=recipe, **how)
    assert [line["loss"] for line in term.steps] == [line["loss"] for line in pair.steps]
    assert same(term.model, pair.model)


def test_a_loss_whose_terms_nobody_counts_is_refused(school: School) -> None:
    recipe = dataclasses.replace(two_terms(1.0), targets=MASKED_LM.targets)
    with pytest.raises(InputError, match="the loss of two-terms has 'hidden, size', its `targets` counts one term"):
        school.train("bert", recipe=recipe, max_steps=1)


def test_a_run_tells_of_its_terms_and_takes_their_weight_from_the_options(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"train_file": text_file, "block_size": 16, "max_steps": 2, "max_eval_samples": 4, "logging_steps": 1}
    asked |= {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "size_loss"}
    done = [
        run(TWO_TERMS, model=model_folders["bert"], output_dir=str(weight), size_weight=weight, **asked)
        for weight in (0.5, 50)
    ]
    for one, weight in zip(done, (0.5, 50), strict=True):
        metrics = one.metrics
        expected = metrics["eval_hidden_loss"] + weight * metrics["eval_size_loss"]
        assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-9)
        assert metrics["perplexity"] == pytest.approx(math.exp(metrics["eval_hidden_loss"]), rel=1e-9)
        line, *_ = read_log(one.output_dir)
        assert line["loss"] == pytest.approx(line["hidden_loss"] + weight * line["size_loss"], rel=1e-5)
        on_the_way = next(line for line in read_log(one.output_dir) if "eval_loss" in line)
        assert on_the_way["eval_size_loss"] == pytest.approx(metrics["eval_size_loss"], rel=1e-6)
    told = figure_lines(done[1].metrics, done[1].perplexity_name)
    assert told[0] == f"loss           {done[1].metrics['eval_loss']:.4f}, the weighted sum of its terms"
    assert f"hidden loss    {done[1].metrics['eval_hidden_loss']:.4g}" in told
    of_sets = {"eval_loss": 7.0, "eval_targets": 3, "eval_size_loss": 2.0}
    of_sets |= {f"eval_wiki_{name.removeprefix('eval_')}": value for name, value in of_sets.items()}
    assert figure_lines(of_sets, "perplexity") == [
        *("wiki loss      7.0000, the weighted sum of its terms", "wiki size loss 2", "wiki targets   3")
    ]
    with installed([TWO_TERMS]):
        again = evaluate(done[1].output_dir, recipe="two-terms", train_file=text_file, size_weight=2)
    assert again["eval_loss"] == pytest.approx(again["eval_hidden_loss"] + 2 * again["eval_size_loss"], rel=1e-9)


def test_terms_that_cannot_be_told_apart_from_other_figures_are_refused_before_anything_is_written(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    asked = {"model": model_folders["bert"], "train_file": text_file, "block_size": 16, "max_steps": 1}
    texts = ["the fox sees the house by night and day"] * 9
    with pytest.raises(InputError, match="an evaluation set cannot be called 'size': there is a figure of that name"):
        run(TWO_TERMS, **asked, output_dir=tmp_path / "out", eval_dataset={"size": texts})
    uncounted = dataclasses.replace(TWO_TERMS, targets=MASKED_LM.targets)
    with pytest.raises(InputError, match="the loss of two-terms has 'hidden, size', its `targets` counts one term"):
        run(uncounted, **asked, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ragged_last_batch_counts_by_its_targets(school: School) -> None:
    """Five examples in batches of two: the last micro-batch has one."""
    ragged = school.train(
        "bert", packed=blocks_of(5), max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=3
    )
    whole = school.train("bert", packed=blocks_of(5), max_steps=1, per_device_train_batch_size=5)
    assert ragged.steps[0]["loss"] == pytest.approx(whole.steps[0]["loss"], rel=1e-4)
    assert ragged.steps[0]["grad_norm"] == pytest.approx(whole.steps[0]["grad_norm"], rel=1e-4)


def test_global_batch_without_targets_teaches_nothing(school: School) -> None:
    def silent(collate: Collate) -> Collate:
        return lambda examples: {**(batch := collate(examples)), "labels": torch.full_like(batch["labels"], -100)}

    before = weights(school.model("bert"))
    result = school.train("bert", wrap=silent, max_steps=2)
    assert [(entry["loss"], entry["grad_norm"]) for entry in result.steps] == [(0.0, 0.0)] * 2
    assert all(torch.equal(value, before[name]) for name, value in weights(result.model).items())


# XLNet has parameters for segments and for its second stream, of which a plain text makes no use.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "xlnet"])
def test_every_parameter_moves(kind: str, school: School) -> None:
    before = weights(school.model(kind))
    after = weights(school.train(kind, max_steps=2).model)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    parameters = {name for name, _ in school.model(kind).named_parameters()}
    assert parameters <= moved


def test_loss_falls_when_there_is_something_to_learn(school: School) -> None:
    rows = np.tile(np.arange(100, 116, dtype=np.int32), (8, 1))
    result = school.train("gpt2", packed=packed_rows(rows), max_steps=60, learning_rate=1e-2)
    assert result.steps[0]["loss"] > 4
    assert result.steps[-1]["loss"] < 0.3


# --- label smoothing ---


def smoothed_step(
    model: PreTrainedModel, batches: list[dict[str, torch.Tensor]], causal: bool, smoothing: float, rate: float
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Plain loss, norm of the smoothed gradient, and the weights after a step down along it, by torch's own loss."""
    logits, labels = [], []
    for batch in batches:
        said, asked = model(input_ids=batch["input_ids"]).logits[0], batch["labels"][0]
        if causal:
            said, asked = said[:-1], asked[1:]
        logits.append(said[asked != -100])
        labels.append(asked[asked != -100])
    told = torch.cat(labels)
    plain = cross_entropy(torch.cat(logits), told)
    (cross_entropy(torch.cat(logits), told, label_smoothing=smoothing, reduction="sum") / len(told)).backward()
    squares = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                squares += float((parameter.grad.double() ** 2).sum())
                parameter -= rate * parameter.grad
    return plain.item(), math.sqrt(squares), weights(model)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "llama"])
def test_smoothed_labels_are_learned_and_plain_losses_logged(kind: str, school: School) -> None:
    examples = ExampleDataset(RAGGED, 42)
    alone = [school.collate(kind)([examples[number]]) for number in range(8)]
    loss, norm, after = smoothed_step(school.model(kind).train(), alone, kind in DECODERS, 0.2, 0.1)
    sgd = {"packed": RAGGED, "max_steps": 1, "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0}
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    smoothed = school.train(kind, label_smoothing_factor=0.2, **sgd, **parts)
    plain = school.train(kind, **sgd, **parts)
    assert smoothed.steps[0]["loss"] == plain.steps[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert smoothed.steps[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert plain.steps[0]["grad_norm"] != pytest.approx(norm, rel=1e-2)
    way = distance(after, school.model(kind))
    assert distance(smoothed.model, after) < 1e-4 * way
    assert distance(plain.model, after) > 1e-2 * way


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_evaluation_on_the_way_does_not_smooth(kind: str, school: School) -> None:
    recipe, _ = recipe_for(kind)
    heard: set[tuple[bool, Any]] = set()

    def listening(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        heard.add((model.training, batch.get("label_smoothing")))
        return recipe.loss(model, batch)

    # A step of no length: the weights stay.
    how = {"max_steps": 1, "optim": "sgd", "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1}
    watched = school.train(kind, recipe=dataclasses.replace(recipe, loss=listening), label_smoothing_factor=0.3, **how)
    assert heard == {(True, 0.3), (False, None)}
    figures = [
        {name: value for name, value in entry.items() if name.startswith("eval_")}
        for entry in (*watched.log, *school.train(kind, **how).log)
        if "eval_loss" in entry
    ]
    assert len(figures) == 2
    assert figures[0] == figures[1]


def test_smoothing_leaves_its_mark_on_a_run(model_folders: dict[str, Path], text_file: Path, tmp_path: Path) -> None:
    asked = {"train_file": text_file, "block_size": 16, "max_steps": 3, "max_eval_samples": 4, "learning_rate": 1e-2}
    losses = [
        run(
            "masked-lm",
            model=model_folders["bert"],
            output_dir=tmp_path / str(factor),
            label_smoothing_factor=factor,
            **asked,
        ).metrics["eval_loss"]
        for factor in (0, "0.4")
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    assert json.loads((tmp_path / "0.4" / "run.json").read_text())["training"]["label_smoothing_factor"] == 0.4


@pytest.mark.parametrize("factor", [1, 1.5, -0.1, "nan", "much"])
def test_factor_out_of_range_is_refused(factor: Any, text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 0 and below 1") as caught:
        run("masked-lm", train_file=text_file, output_dir=tmp_path / "out", max_steps=1, label_smoothing_factor=factor)
    assert caught.value.message.startswith("--label_smoothing_factor cannot be")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def deaf(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
    """Takes what it knows from the batch, as most losses do."""
    return MASKED_LM.loss(model, {name: value for name, value in batch.items() if name != "label_smoothing"})


def deaf_and_noisy(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
    """Has another gradient every time, for another reason."""
    total, *more = deaf(model, batch)
    return total * (1 + torch.rand(())) if torch.is_grad_enabled() else total, *more


def strict(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
    def forward(input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: Any = None) -> Any:
        return deaf(model, {"input_ids": input_ids, "labels": labels})

    return forward(**batch)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (deaf, "quiet takes no notice of --label_smoothing_factor"),
        (deaf_and_noisy, "quiet takes no notice of --label_smoothing_factor"),
        (strict, r"quiet cannot train with --label_smoothing_factor: .*unexpected keyword argument 'label_smoothing'"),
    ],
)
def test_recipe_that_would_not_smooth_is_refused_before_anything_is_written(
    loss: Any, message: str, model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(MASKED_LM, name="quiet", loss=loss)
    asked = {"model": model_folders["bert"], "train_file": text_file, "block_size": 16, "max_steps": 1}
    with pytest.raises(InputError, match=message) as caught:
        run(recipe, **asked, output_dir=tmp_path / "out", label_smoothing_factor=0.1)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "leave --label_smoothing_factor out"
    assert list(tmp_path.iterdir()) == []
    assert run(recipe, **asked, output_dir=tmp_path / "out", label_smoothing_factor=0).metrics["eval_loss"] > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_making_sure_of_smoothing_leaves_no_trace(kind: str, training: bool, school: School) -> None:
    left = []
    for factor in (0.0, 0.1):
        arguments = training_arguments({"label_smoothing_factor": factor, "report_to": "none"}, school.root, 1)
        model = school.model(kind, dropout=True).train(training)
        school.rehearse(model, recipe_for(kind)[0], arguments, ExampleDataset(RAGGED, 42), school.collate(kind))
        assert model.training is training
        assert all(parameter.grad is None for parameter in model.parameters())
        left.append((model, torch.get_rng_state()))
    assert same(left[0][0], left[1][0])
    assert torch.equal(left[0][1], left[1][1])


@pytest.mark.parametrize("kind", KINDS)
def test_smoothing_is_looked_for_in_an_example_that_has_targets(kind: str, school: School) -> None:
    recipe, _ = recipe_for(kind)
    arguments = training_arguments({"label_smoothing_factor": 1e-6, "report_to": "none"}, school.root, 1)
    examples = ExampleDataset(ragged([1, 1, 9]), 42)  # a single token has none before it
    school.rehearse(school.model(kind), recipe, arguments, examples, school.collate(kind))

    def plain(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        return recipe.loss(model, {name: value for name, value in batch.items() if name != "label_smoothing"})

    deaf_one = dataclasses.replace(recipe, loss=plain)
    with pytest.raises(InputError, match="takes no notice"):
        school.rehearse(school.model(kind), deaf_one, arguments, examples, school.collate(kind))


# --- repeatability ---


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_same_seed_gives_the_same_weights_to_the_last_bit(kind: str, school: School) -> None:
    how = {"dropout": True, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    one, other = school.train(kind, **how), school.train(kind, **how)
    assert same(one.model, other.model)
    assert not same(one.model, school.train(kind, seed=43, **how).model)


def test_data_loader_workers_change_nothing(school: School) -> None:
    how = {"dropout": True, "num_train_epochs": 3, "per_device_train_batch_size": 4}
    assert same(school.train("roberta", **how).model, school.train("roberta", **how, dataloader_num_workers=2).model)


def test_workers_that_live_through_all_epochs_hide_other_tokens_in_each(school: School) -> None:
    # Without dropout, whose noise depends on how often a data loader starts.
    how = {"num_train_epochs": 3, "per_device_train_batch_size": 8}
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    one, other = school.train("roberta", **how), school.train("roberta", **how, **workers)
    assert [entry["loss"] for entry in other.steps] == pytest.approx([entry["loss"] for entry in one.steps], rel=1e-5)


def test_every_epoch_hides_other_tokens(school: School) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(collate: Collate) -> Collate:
        def watch(examples: list[dict[str, Any]]) -> Any:
            seen.extend(example["seed"] for example in examples)
            return collate(examples)

        return watch

    school.train("bert", wrap=watched, num_train_epochs=3, seed=7)
    assert sorted(seen) == [(7, epoch, number) for epoch in range(3) for number in range(8)]


def test_evaluating_on_the_way_changes_nothing(school: School) -> None:
    how = {"dropout": True, "num_train_epochs": 3, "per_device_train_batch_size": 4}
    watched = school.train("roberta", eval_strategy="steps", eval_steps=1, **how)
    assert sum("eval_loss" in entry for entry in watched.log) == 6
    assert same(watched.model, school.train("roberta", **how).model)


# --- interruption and resumption ---


def interrupting(batch: int, number: int = signal.SIGTERM) -> Callable[[Collate], Collate]:
    """Sends this process a signal while it prepares the n-th batch."""

    def wrap(collate: Collate) -> Collate:
        calls = iter(range(1, 1000))

        def collate_or_stop(examples: list[dict[str, Any]]) -> Any:
            if next(calls) == batch:
                os.kill(os.getpid(), number)
            return collate(examples)

        return collate_or_stop

    return wrap


# Twelve examples in batches of four: three steps an epoch, nine in all.
NINE = {"packed": blocks_of(12), "num_train_epochs": 3, "per_device_train_batch_size": 4, "dropout": True}


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_training_that_is_stopped_and_resumed_is_the_uninterrupted_one_to_the_last_bit(
    kind: str, school: School
) -> None:
    whole = school.train(kind, **NINE)
    folder = school.root / "interrupted"
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 4, with a checkpoint") as caught:
        # The loader is one batch ahead of the step that is being made.
        school.train(kind, **NINE, folder=folder, wrap=interrupting(5))
    assert caught.value.exit_code == 143
    resumed = school.train(kind, **NINE, folder=folder, resume=latest(folder))
    assert same(resumed.model, whole.model)
    told = [[(entry["step"], entry["loss"], entry["grad_norm"]) for entry in run.steps] for run in (whole, resumed)]
    assert told[0] == told[1], "one log, as if nothing had happened"


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 8])
def test_training_resumed_anywhere_ends_with_the_same_weights(kind: str, step: int, school: School) -> None:
    """In the middle of an epoch (1, 2, 4, 8) and between two (3, 6)."""
    whole = school.train(kind, **NINE, save_strategy="steps", save_steps=1)
    resumed = school.train(kind, **NINE, resume=whole.folder / "checkpoints" / f"checkpoint-{step}")
    assert [entry["step"] for entry in resumed.steps] == list(range(step + 1, 10))
    assert same(resumed.model, whole.model)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_resumption_is_exact_with_gradient_accumulation(step: int, school: School) -> None:
    # Six batches of two an epoch, accumulated by four: a step of four batches and one of two.
    how = {**NINE, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    whole = school.train("roberta", **how, save_strategy="steps", save_steps=1)
    assert whole.done.state.global_step == 6
    resumed = school.train("roberta", **how, resume=whole.folder / "checkpoints" / f"checkpoint-{step}")
    assert same(resumed.model, whole.model)


@pytest.mark.parametrize(
    "how",
    [
        {"max_steps": 8, "save_strategy": "steps", "save_steps": 4},
        {"max_steps": 9, "save_strategy": "steps", "save_steps": 4},
        {"max_steps": 5, "save_strategy": "steps", "save_steps": 5, "gradient_accumulation_steps": 2},
        {"max_steps": 8, "save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True},
        {"save_strategy": "steps", "save_steps": 9, "eval_strategy": "steps", "eval_steps": 3},
    ],
    ids=["in mid-epoch", "after an epoch", "accumulated", "by epochs", "evaluated"],
)
@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_training_resumed_after_its_last_step_makes_no_further_one(
    kind: str, how: dict[str, Any], school: School
) -> None:
    """At a constant rate one more step would change the weights; at one that has fallen to zero it would not."""
    how = {**NINE, "lr_scheduler_type": "constant", **how}
    whole = school.train(kind, **how)
    last = latest(whole.folder)
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in last.iterdir()}
    resumed = school.train(kind, **how, resume=last)
    assert resumed.steps == []
    assert resumed.done.state.global_step == whole.done.state.global_step == how.get("max_steps", 9)
    assert resumed.done.metrics["epoch"] == whole.done.metrics["epoch"]
    assert same(resumed.model, whole.model)
    history = [[entry for entry in run.done.state.log_history if "train_loss" not in entry] for run in (whole, resumed)]
    assert history[0] == history[1]
    assert list((resumed.folder / "checkpoints").glob("*")) == []
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in last.iterdir()} == before


TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_tokens_per_second"}


def untimed(result: Result) -> dict[str, float]:
    assert result.done.metrics.keys() >= TIMES
    return {name: value for name, value in result.done.metrics.items() if name not in TIMES}


@pytest.mark.parametrize("more", [{"logging_steps": 4}, {"logging_steps": 2, "gradient_accumulation_steps": 2}])
def test_metrics_of_resumed_training_are_those_of_all_steps(more: dict[str, Any], school: School) -> None:
    """Resumed anywhere, and from a checkpoint of what was itself resumed."""
    how = {**NINE, **more, "save_strategy": "steps", "save_steps": 1, "include_num_input_tokens_seen": True}
    whole = school.train("roberta", **how)
    steps = whole.done.state.global_step
    assert untimed(whole)["train_loss"] > 0
    for step in (1, 3, steps):
        resumed = school.train("roberta", **how, resume=whole.folder / "checkpoints" / f"checkpoint-{step}")
        assert untimed(resumed) == untimed(whole), step
    folder = school.root / "chain"
    school.train("roberta", **how, folder=folder, resume=whole.folder / "checkpoints" / "checkpoint-3")
    again = school.train("roberta", **how, resume=folder / "checkpoints" / "checkpoint-4")
    assert untimed(again) == untimed(whole)


def test_times_of_resumed_training_are_those_of_all_its_legs(school: School) -> None:
    how = {**NINE, "save_strategy": "steps", "save_steps": 6}
    whole = school.train("roberta", **how)
    checkpoint = whole.folder / "checkpoints" / "checkpoint-6"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    taken = state["stateful_callbacks"]["lmtasks"]["seconds"]
    assert 0 < taken < whole.done.metrics["train_runtime"]
    state["stateful_callbacks"]["lmtasks"]["seconds"] = 1000.0
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    metrics = school.train("roberta", **how, resume=checkpoint).done.metrics
    runtime = metrics["train_runtime"]
    assert 1000 < runtime < 1000 + whole.done.metrics["train_runtime"] + 60
    # Nine steps of four blocks of sixteen tokens.
    assert metrics["train_steps_per_second"] == round(9 / runtime, 3)
    assert metrics["train_samples_per_second"] == round(9 * 4 / runtime, 3)
    assert metrics["train_tokens_per_second"] == round(9 * 4 * 16 / runtime, 1)


def test_what_was_before_a_checkpoint_that_does_not_say_it_is_not_claimed(school: School) -> None:
    whole = school.train("roberta", **NINE, save_strategy="steps", save_steps=6)
    checkpoint = whole.folder / "checkpoints" / "checkpoint-6"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["lmtasks"]
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    resumed = school.train("roberta", **NINE, resume=checkpoint)
    metrics = resumed.done.metrics
    assert "train_loss" not in metrics and same(resumed.model, whole.model)
    assert metrics["train_tokens_per_second"] == pytest.approx(3 * 4 * 16 / metrics["train_runtime"], abs=0.06)


def test_ctrl_c_stops_likewise(school: School) -> None:
    with pytest.raises(Interrupted, match="stopped by SIGINT") as caught:
        school.train("bert", wrap=interrupting(2, signal.SIGINT), num_train_epochs=5)
    assert caught.value.exit_code == 130
    assert "--resume_from_checkpoint true" in caught.value.hint


def test_interruption_leaves_a_checkpoint_that_loads_on_its_own(school: School) -> None:
    folder = school.root / "stopped"
    with pytest.raises(Interrupted):
        school.train("roberta", folder=folder, wrap=interrupting(2), num_train_epochs=5)
    (checkpoint,) = (folder / "checkpoints").glob("checkpoint-*")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForMaskedLM.from_pretrained(checkpoint)
    assert (
        tokenizer("a <mask>")["input_ids"]
        == AutoTokenizer.from_pretrained(school.folders["roberta"])("a <mask>")["input_ids"]
    )
    assert model.config.pad_token_id == school.model("roberta").config.pad_token_id


def test_signal_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with Signals(keep=True):
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_second_signal_stops_at_once() -> None:
    with Signals(keep=True) as signals, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[Any] = []

    def work() -> None:
        with Signals(keep=True):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


# --- failure ---


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("logging", [{"logging_steps": 1}, {"logging_strategy": "no"}], ids=["logged", "not logged"])
def test_divergence_is_a_failed_run(kind: str, logging: dict[str, Any], school: School) -> None:
    model = school.model(kind)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.inf)
    with pytest.raises(RunError, match=r"training diverged: (loss|grad_norm|train_loss) is nan at step \d") as caught:
        school.train(kind, model=model, max_steps=3, **logging)
    assert caught.value.exit_code == 3
    assert "--learning_rate" in caught.value.hint


def test_exploding_learning_rate_is_a_failed_run(school: School) -> None:
    with pytest.raises(RunError, match="training diverged"):
        school.train("gpt2", learning_rate=1e30, max_steps=30, max_grad_norm=0)


def test_log_of_a_diverged_run_is_json_all_the_same(school: School) -> None:
    model = school.model("bert")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    folder = school.root / "diverged"
    with pytest.raises(RunError):
        school.train("bert", model=model, max_steps=3, folder=folder)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["loss"] for line in lines] == ["nan"]


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_running_out_of_memory_is_a_failed_run_that_says_what_to_do(error: type[Exception], school: School) -> None:
    def hungry(collate: Collate) -> Collate:
        def fail(examples: Any) -> Any:
            raise error("no more")

        return fail

    with pytest.raises(RunError, match="out of memory while training") as caught:
        school.train("bert", wrap=hungry)
    assert "--gradient_accumulation_steps" in caught.value.hint


def test_fewer_steps_than_planned_are_a_failed_run(school: School) -> None:
    how = {"max_steps": 5, "dataloader_drop_last": True, "per_device_train_batch_size": 16}
    with pytest.raises(RunError, match="training ended after 0 of 5 steps") as caught:
        school.train("bert", packed=blocks_of(8), **how)
    assert caught.value.exit_code == 3 and "--per_device_train_batch_size" in caught.value.hint


# --- what is told ---


def test_log_has_a_line_for_every_logged_step_and_a_last_one(school: School) -> None:
    result = school.train("bert", max_steps=4, logging_steps=2, per_device_train_batch_size=4)
    assert [entry["step"] for entry in result.log] == [2, 4, 4]
    first, _, last = result.log
    assert {"loss", "grad_norm", "learning_rate", "epoch"} <= first.keys()
    assert first["epoch"] == 1.0
    assert last["train_loss"] == pytest.approx(np.mean([entry["loss"] for entry in result.steps]), rel=1e-6)


def test_log_is_appended_to(school: School) -> None:
    folder = school.root / "twice"
    school.train("bert", max_steps=1, folder=folder)
    lines = len(read_log(folder))
    school.train("bert", max_steps=1, folder=folder)
    assert len(read_log(folder)) == 2 * lines


def test_evaluation_on_the_way_reports_lmtasks_figures(school: School) -> None:
    result = school.train("roberta", max_steps=1, eval_strategy="steps", eval_steps=1)
    (entry,) = (entry for entry in result.log if "eval_loss" in entry)
    examples = ExampleDataset(blocks_of(4), EVALUATION_SEED)
    figures = evaluate_model(result.model, MASKED_LM, examples, school.collate("roberta", training=False), 2)
    for name in ("loss", "perplexity", "accuracy", "bits_per_byte", "targets", "unigram_loss"):
        assert entry[f"eval_{name}"] == pytest.approx(figures[name], rel=1e-5), name


def test_metrics_of_training(school: School) -> None:
    result = school.train("bert", max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert {"train_loss", "train_runtime", "epoch"} <= result.done.metrics.keys()
    tokens = 3 * 2 * 2 * 16
    expected = tokens / result.done.metrics["train_runtime"]
    assert result.done.metrics["train_tokens_per_second"] == pytest.approx(expected, abs=0.06)


def test_operations_are_six_for_each_weight_and_token(school: School) -> None:
    """As the Trainer estimates them: without the embeddings."""
    result = school.train("bert", max_steps=2, per_device_train_batch_size=4)
    weights = result.model.num_parameters(exclude_embeddings=True)
    assert result.done.metrics["total_flos"] == 6 * weights * 2 * 4 * 16


def test_best_model_can_be_loaded_at_the_end(school: School) -> None:
    result = school.train(
        "bert",
        max_steps=2,
        learning_rate=0.3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="perplexity",
        greater_is_better=False,
        load_best_model_at_end=True,
    )
    figures = [entry["eval_perplexity"] for entry in result.log if "eval_perplexity" in entry]
    assert result.done.state.best_metric == min(figures)


def test_a_best_model_by_a_figure_that_is_not_there_is_a_failed_run(school: School) -> None:
    how = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "perplexty"}
    with pytest.raises(RunError, match="perplexty is no figure of the evaluation, did you mean 'perplexity'"):
        school.train("bert", max_steps=1, **how)


def test_nothing_is_printed_on_stdout(school: School, capfd: pytest.CaptureFixture[str]) -> None:
    school.train("bert", max_steps=2)
    assert capfd.readouterr().out == ""
