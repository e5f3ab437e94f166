"""A recipe about something else than text: here, files of numbers. The runner does with it what it does with text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import pytest
import torch
import transformers

import lmtasks
from lmtasks import InputError, Medium, Recipe, RunError, option
from lmtasks.cli.data import inspection_lines
from lmtasks.config.settings import ModelSettings
from lmtasks.models.config import load_config
from lmtasks.registry.enabled_plugins import also, selected
from lmtasks.runs.inspection import inspect_data


class ToyConfig(transformers.PretrainedConfig):
    model_type = "toy-numbers"
    width: int = 1
    steps: list[int] | tuple[int, ...] = (1, 2)


class ToyModel(transformers.PreTrainedModel):
    """Guesses every number as a straight line through the mean of those that it sees."""

    config_class = ToyConfig
    main_input_name = "values"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.line = torch.nn.Linear(1, 1)
        self.scale = 1.0
        self.post_init()

    def forward(self, values: torch.Tensor, seen: torch.Tensor) -> Any:
        mean = (values * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=self.line(mean) * self.scale)


transformers.AutoConfig.register("toy-numbers", ToyConfig)


def numbers(cell: str) -> np.ndarray:
    return np.array(cell.split(), dtype=np.float32)


def rows_of(cells: Sequence[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"numbers": list(cells)})


def files(paths: Sequence[Path], data: Any) -> tuple[datasets.Dataset, str | None, bool]:
    return rows_of([path.read_text() for path in paths]), "numbers", True


def select(rows: datasets.Dataset, column: str | None, source: str) -> tuple[datasets.Dataset, tuple[str, ...]]:
    if (column or "numbers") not in rows.column_names:
        raise InputError(f"{source} has no column '{column}'", "--column NAME")
    return rows.select_columns([column or "numbers"]), (column or "numbers",)


def filled(rows: datasets.Dataset, column: tuple[str, ...], source: str) -> np.ndarray:
    return np.array([bool(cell.strip()) for cell in rows[column[0]]])


def duplicates(train: Any, evaluation: Any) -> int:
    known = {train.rows[int(number)][train.column[0]] for number in train.numbers()}
    return sum(evaluation.rows[int(number)][evaluation.column[0]] in known for number in evaluation.numbers())


@dataclass(frozen=True)
class Series:
    rows: tuple[np.ndarray, ...]
    unit = "numbers"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> int:
        return sum(map(len, self.rows))

    @property
    def per_example(self) -> float:
        return self.total / len(self)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"".join(row.tobytes() for row in self.rows)).hexdigest()

    def example(self, index: int) -> dict[str, Any]:
        return {"values": self.rows[index]}

    def longest_first(self) -> Iterator[int]:
        yield from sorted(range(len(self)), key=lambda number: -len(self.rows[number]))

    def head(self, examples: int | None) -> Series:
        return Series(self.rows[:examples])

    def sizes(self) -> dict[str, Any]:
        return {"rows": len(self), "unit": "series", "numbers": self.total, "fingerprint": self.fingerprint}

    def notes(self, name: str) -> Iterator[str]:
        yield f"the {name} numbers are small"


class Whole:
    """Every row is an example."""

    def examples(self, name: str, split: Any, processor: Any, config: ToyConfig) -> Series:
        cells = split.rows[split.column[0]]
        return Series(tuple(numbers(cells[int(number)]) * config.width for number in split.numbers()))


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    growth: float = option(0.0, help="how much the model's scale grows at every step")


def collator(processor: Any, options: Any, training: bool) -> Any:
    """One number of each series is hidden."""

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(example["values"]) for example in examples)
        values, seen = torch.zeros(len(examples), longest), torch.zeros(len(examples), longest)
        labels = torch.full((len(examples), longest), -100)
        for row, example in enumerate(examples):
            length = len(example["values"])
            hidden = np.random.default_rng(example["seed"]).integers(length)
            values[row, :length] = torch.from_numpy(example["values"])
            seen[row, :length] = 1
            seen[row, hidden] = 0
            labels[row, hidden] = 0
        return {"values": values, "seen": seen, "labels": labels}

    return collate


def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
    guess = model(values=batch["values"], seen=batch["seen"]).last_hidden_state.expand_as(batch["values"])
    wanted = batch["labels"] != -100
    squares = (guess - batch["values"])[wanted].square()
    return squares.double().sum(), wanted.sum(), {"each": squares.new_tensor([[1, 2], [3, 4]]) * len(squares)}


class Corners(evaluate.Metric):
    """Sums may have any shape: here a table of two by two for each batch."""

    def _info(self) -> Any:
        table = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        features = datasets.Features({"each": table, "targets": datasets.Value("int64")})
        return evaluate.MetricInfo("corners", "", features)

    def _compute(self, each: Any, targets: Any) -> dict[str, float]:
        return {"last_corner": float(np.sum(each, axis=0)[1, 1] / sum(targets))}


def before_step(model: Any, options: ToyOptions, steps: int) -> None:
    model.scale = 1.0 + options.growth * steps


NUMBERS = Medium(
    name="numbers",
    suffixes=(".num",),
    files=files,
    items=lambda items, name: rows_of(items),
    select=select,
    filled=filled,
    duplicates=duplicates,
)
TOY = Recipe(
    name="toy",
    summary="Guess a number among others.",
    options=ToyOptions,
    preprocess=lambda processor, options: Whole(),
    collator=collator,
    loss=loss,
    model_class="test_medium:ToyModel",
    pipeline="test_medium:ToyModel",
    medium=NUMBERS,
    processor="transformers:AutoFeatureExtractor",
    new_processor=lambda config, options: transformers.Wav2Vec2FeatureExtractor(sampling_rate=7 * config.width),
    before_step=before_step,
    metrics=("test_medium:Corners",),
)
SMALL: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 0.1, "test_size": 0.25}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    for number in range(8):
        text = " ".join(str(number + step / 10) for step in range(2 + number))
        (place / f"{number}.num").write_text(text)
    (place / "empty.num").write_text(" ")
    (place / "notes.txt").write_text("no numbers")
    return place


def run(folder: Path, out: Path, **values: Any) -> Any:
    given = {"model_type": "toy-numbers", "train_file": [str(folder)], "output_dir": str(out), **SMALL, **values}
    return lmtasks.run(values.pop("recipe", TOY), **{name: value for name, value in given.items() if name != "recipe"})


def test_plan_is_told_in_the_mediums_own_words(folder: Path, tmp_path: Path) -> None:
    plan = run(folder, tmp_path / "out", dry_run=True)
    lines = plan.lines()
    assert plan.train["rows"] + plan.evaluation["rows"] == 8, "neither the empty file nor the text"
    assert f"  train    6 series, {plan.train['numbers']:,} numbers" in lines
    assert any(line.startswith("training   4 steps of 2 examples (") for line in lines)
    assert "vocabulary" not in "".join(lines) and plan.vocabulary is None
    assert "the training numbers are small" in plan.notes and "the held-out numbers are small" in plan.notes
    assert not any("head" in note or "uniform guess" in note for note in plan.notes)
    assert not (tmp_path / "out").exists()


def test_data_are_shown_in_counts_alone(folder: Path) -> None:
    seen = inspect_data(TOY, model_type="toy-numbers", train_file=[str(folder)], **SMALL)
    assert {name: seen.splits[name]["rows"] for name in seen.splits} == {"train": 6, "evaluation": 2}
    assert seen.examples == seen.documents == () and seen.column is None
    lines = list(inspection_lines(seen))
    assert f"  numbers           {seen.splits['train']['numbers']:,}" in lines and "  series            6" in lines


def test_it_trains_saves_and_evaluates_like_text(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "out", eval_strategy="steps", eval_steps=2)
    figures = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert figures == {"eval_loss": figures["eval_loss"], "last_corner": 4.0, "eval_targets": 2}
    assert "train_numbers_per_second" in done.metrics and "train_tokens_per_second" not in done.metrics
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "preprocessor_config.json" in record["files"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| train | 6 | series |" in card
        and "Measured on 2 targets" in card
        and "FILE.num" in card
        and "type: numbers" in card
    )
    # What was saved, against an oracle by hand: the line through the mean of what is seen.
    saved = ToyModel.from_pretrained(tmp_path / "out")
    held_out = [numbers(path.read_text()) for path in sorted(folder.glob("[0-9].num"))]
    with selected():
        again = lmtasks.evaluate(tmp_path / "out", recipe=_installed(tmp_path), validation_file=[str(folder)])
    expected = []
    for number, row in enumerate(held_out):
        hidden = np.random.default_rng((lmtasks.EVALUATION_SEED, 0, number)).integers(len(row))
        mean = torch.tensor([[float(np.delete(row, hidden).mean())]])
        expected.append(float(saved.line(mean).item() - row[hidden]) ** 2)
    assert again["eval_loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_sources_are_mixed_by_the_mediums_own_unit(folder: Path, tmp_path: Path) -> None:
    sources = [
        {"name": name, "train_file": [str(folder / f"{number}.num") for number in numbers], "weight": 1}
        for name, numbers in {"short": range(4), "long": range(4, 8)}.items()
    ]
    plan = run(folder, tmp_path / "out", train_file=None, data={"sources": sources}, dry_run=True)
    short, long = plan.sources["short"], plan.sources["long"]
    assert (short["rows"], long["rows"]) == (3, 3), "a quarter is held out"
    examples = plan.train["examples_per_epoch"]
    assert 4 <= examples < 6, "all of the short ones, which have fewer numbers, and some of the long"
    assert short["numbers"] == short["numbers_per_epoch"] and long["numbers_per_epoch"] < long["numbers"]
    assert plan.evaluations.keys() == {"short", "long"}
    assert "the training long numbers are small" in plan.notes


def _installed(place: Path) -> str:
    """A file that brings the recipe, for what is found by name."""
    file = place / "toy_recipe.py"
    file.write_text("from test_medium import TOY\n")
    also(str(file))
    return str(file)


@pytest.mark.parametrize(("batch", "parts"), [(4, 1), (2, 2), (1, 4)])
def test_accumulation_changes_nothing(batch: int, parts: int, folder: Path, tmp_path: Path) -> None:
    values = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0}
    values |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": parts}
    done = run(folder, tmp_path / "out", **values)
    weight = ToyModel.from_pretrained(done.output_dir).line.weight.item()
    whole = run(
        folder, tmp_path / "whole", **{**values, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    )
    assert weight == pytest.approx(ToyModel.from_pretrained(whole.output_dir).line.weight.item(), rel=1e-5)


def test_before_step_is_told_the_steps_that_are_done(folder: Path, tmp_path: Path) -> None:
    told = []

    def note(model: Any, options: ToyOptions, steps: int) -> None:
        told.append((type(model), options.growth, steps))

    run(folder, tmp_path / "out", recipe=dataclasses.replace(TOY, before_step=note), growth=0.5)
    assert told == [(ToyModel, 0.5, steps) for steps in range(4)]


def test_what_before_step_leaves_in_memory_alone_is_not_what_is_saved(folder: Path, tmp_path: Path) -> None:
    # The scale of this model counts in its answers and is not saved with it: the check of the saved model says so.
    with pytest.raises(RunError, match="is not the one that was trained"):
        run(folder, tmp_path / "out", growth=0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_by": "paragraph"}, "--sample_by is about text, and this is about numbers"),
        ({"train_tokenizer": 500}, "toy has no tokenizer to train"),
        ({"overwrite_cache": True}, "--overwrite_cache is about text"),
        ({"label_smoothing_factor": 0.1}, "toy takes no notice of --label_smoothing_factor"),
        ({"train_file": None}, "no data given"),
        ({"train_file": None, "train_dataset": ["1 2"]}, "only 1 document with numbers"),
        ({"train_file": None, "train_dataset": ["1 2", "3 4"], "column": "x"}, None),
        (
            {"train_file": None, "train_dataset": datasets.Dataset.from_dict({"y": ["1"]}), "column": "x"},
            "no column 'x'",
        ),
        ({"config_overrides": "steps=3"}, "'steps' must be a list"),
    ],
)
def test_what_does_not_go_with_the_medium_is_refused(
    values: dict[str, Any], message: str | None, folder: Path, tmp_path: Path
) -> None:
    if message is None:
        assert run(folder, tmp_path / "out", **values).metrics["eval_targets"] == 1
        return
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_lists_in_config_overrides() -> None:
    settings = ModelSettings(model_type="toy-numbers", config_overrides="steps=[3,4,5],width=2")
    config = load_config(settings, TOY)
    assert list(config.steps) == [3, 4, 5] and config.width == 2


def test_the_processing_class_is_the_models_own_or_the_one_that_is_named(folder: Path, tmp_path: Path) -> None:
    first = run(folder, tmp_path / "first", config_overrides="width=3")
    rate = {"model": str(first.output_dir), "model_type": None}
    run(folder, tmp_path / "second", **rate)
    other = tmp_path / "other"
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=5).save_pretrained(other)
    run(folder, tmp_path / "third", **rate, processor_name=str(other))
    rates = [
        json.loads((tmp_path / name / "preprocessor_config.json").read_text())["sampling_rate"]
        for name in ("first", "second", "third")
    ]
    assert rates == [21, 21, 5]
    with pytest.raises(InputError, match="cannot load processing class"):
        run(folder, tmp_path / "fourth", **rate, processor_name=str(folder))


def test_a_recipe_takes_only_the_model_types_that_it_names(model_folders: dict[str, Path]) -> None:
    settings = ModelSettings(model_name_or_path=str(model_folders["bert"]))
    picky = dataclasses.replace(TOY, model_class="transformers:AutoModelForMaskedLM", model_types=("roberta",))
    with pytest.raises(InputError, match=r"toy cannot train .*: bert has no such model class") as caught:
        load_config(settings, picky)
    assert caught.value.hint == "lmtasks run causal-lm takes it"
    assert load_config(settings, dataclasses.replace(picky, model_types=("roberta", "bert"))).model_type == "bert"


def test_a_loss_that_depends_on_the_padding_is_refused(folder: Path, tmp_path: Path) -> None:
    def careless(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        total, *more = loss(model, batch)
        return total * batch["values"].shape[1], *more

    with pytest.raises(InputError, match="toy cannot train this toy-numbers model on numbers: its losses depend on"):
        run(folder, tmp_path / "out", recipe=dataclasses.replace(TOY, loss=careless), test_size=0.5)


def test_a_model_that_cannot_take_the_examples_is_refused(folder: Path, tmp_path: Path) -> None:
    def unlike(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        return model(waves=batch["values"])

    with pytest.raises(InputError, match=r"the model fails on an example: .*waves"):
        run(folder, tmp_path / "out", recipe=dataclasses.replace(TOY, loss=unlike))


def test_the_testing_kit_is_for_recipes_about_text() -> None:
    from lmtasks.testing import check_recipe

    with pytest.raises(InputError, match="the kit proves recipes about text, and toy is about numbers"):
        check_recipe(TOY)


@pytest.mark.parametrize("values", [{"name": "Two words"}, {"suffixes": ("wav",)}])
def test_medium_of_the_wrong_shape_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="medium"):
        dataclasses.replace(NUMBERS, **values)
