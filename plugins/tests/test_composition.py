"""Packages compose: an architecture of one works with every recipe of another whose model class it has.

Neither package knows the other. The pairs come from the catalog, so a new package is tested with all others. With the
recipes that lmtasks brings, each package is tested among its own.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest

import lmtasks
from lmtasks.cli.app import main

TEXT = "one two three four " * 600

CATALOG = lmtasks.load_catalog()
# What needs more than a text, such as a teacher, is proved in its own package.
ABOUT_TEXT = [name for name, recipe in CATALOG.recipes.items() if recipe.medium is None and recipe.starter]
# lmtasks' own declarations are about models of transformers, which ``tox run -e architectures`` proves.
BROUGHT = [kind for one in CATALOG.plugins if one.distribution != "lmtasks" for kind in one.architectures]
ALL = [(recipe, architecture) for recipe in ABOUT_TEXT for architecture in BROUGHT]


def fits(recipe: str, architecture: str) -> bool:
    """Whether the architecture declares the class that the recipe trains."""
    trained = CATALOG.recipes[recipe].model_class.removeprefix("transformers:")
    return trained in CATALOG.architectures[architecture].models


FITTING = [pair for pair in ALL if fits(*pair)]
PAIRS = [pair for pair in FITTING if CATALOG.owner(pair[0]).distribution != "lmtasks"]
# A model type that transformers has may have more classes than its package says.
OTHERS = [pair for pair in ALL if not fits(*pair) and CATALOG.architectures[pair[1]].config]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def nothing_of_the_persons_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str]):
    """What a command does."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capfd.readouterr())

    return call


def asked(recipe: str, architecture: str, folder: Path) -> list[object]:
    """A run of a recipe with an architecture of the size that its package gives for tests."""
    (folder / "text.txt").write_text(TEXT)
    shape = CATALOG.architectures[architecture].tiny
    return [
        "run", recipe, "--model_type", architecture, "--train_tokenizer", 320, "--train_file", folder / "text.txt",
        "--config_overrides", ",".join(f"{name}={value}" for name, value in shape.items()),
        "--sample_by", "document", "--validation_file", folder / "held-out.txt",
        "--block_size", 32, "--learning_rate", 2e-3, "--max_steps", 60, "--output_dir", folder / "out", "--json",
    ]  # fmt: skip


def test_there_are_pairs_of_different_packages() -> None:
    assert {("fill-in-the-middle", "lstm"), ("masked-diffusion", "nezha")} <= set(PAIRS)
    owners = {kind: one.distribution for one in CATALOG.plugins for kind in one.architectures}
    assert all(CATALOG.owner(recipe).distribution != owners[kind] for recipe, kind in PAIRS)


@pytest.mark.parametrize(("recipe", "architecture"), PAIRS, ids=map("-with-".join, PAIRS))
def test_a_recipe_of_one_package_trains_an_architecture_of_another(recipe, architecture, typed, tmp_path) -> None:
    (tmp_path / "held-out.txt").write_text(TEXT[:2000])
    ran = typed(*asked(recipe, architecture, tmp_path))
    assert ran.code == 0, ran.err
    metrics = json.loads(ran.out)["metrics"]
    vocabulary = json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"]
    assert metrics["eval_loss"] < 0.75 * math.log(vocabulary), "it has learned a part of what it did not know"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["recipe"], record["model_type"]) == (recipe, architecture)
    again = typed("evaluate", tmp_path / "out", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-6)
    text = CATALOG.recipes[recipe].starter.texts[0]
    told = typed("predict", tmp_path / "out", text)
    assert told.code == 0, told.err
    assert told.out.strip()


@pytest.mark.parametrize(("recipe", "architecture"), OTHERS, ids=map("-with-".join, OTHERS))
def test_what_does_not_fit_is_refused_with_what_does(recipe, architecture, typed, tmp_path) -> None:
    (tmp_path / "held-out.txt").write_text(TEXT[:2000])
    refused = typed(*asked(recipe, architecture, tmp_path))
    error, hint = refused.err.splitlines()[-2:]
    assert (refused.code, error.split(":")[0]) == (2, "error")
    assert f"{recipe} cannot train '{architecture}'" in error
    assert hint == f"hint: lmtasks run {next(name for name, model in FITTING if model == architecture)} takes it"
    assert not (tmp_path / "out").exists()
