"""What is true without Keras: the declaration, what is missing, batches of one shape, losses of one shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lmtasks_keras import KERAS, backends
from lmtasks_keras.backends import backend_for
from lmtasks_keras.batches import constant, shapes_of, step_batches
from lmtasks_keras.fitting import parts
from lmtasks_keras.optimizer_state import require_backend
from lmtasks_keras.static import RecipeLoss

from lmtasks import InputError, load_catalog
from lmtasks.api import loss_terms
from lmtasks.cli.app import main
from lmtasks.testing import check_engine


def test_it_keeps_the_contract_as_far_as_that_goes_without_keras():
    assert not check_engine(
        KERAS, only=["engine-comes-in", "engine-import-is-light", "engine-options-are-documented"]
    ).failed


def test_it_comes_in_by_its_entry_point():
    owner = next(plugin for plugin in load_catalog().plugins if "keras" in plugin.engines)
    assert owner.distribution == "lmtasks-keras"


@pytest.mark.parametrize(("backend", "lacking"), [("jax", "torchax"), ("tensorflow", "tensorflow"), ("torch", "keras")])
def test_what_is_missing_is_told_with_what_to_install(backend, lacking, monkeypatch, words, capsys):
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == lacking else object())
    assert main([*words, "--engine", "keras", "--keras_backend", backend]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error == f"error: Keras on {backend} needs {lacking}, which cannot be imported here"
    assert hint == f"hint: pip install 'lmtasks-keras[{backend}]'"


def test_a_mistyped_option_is_told_from_a_missing_package(words, capsys):
    assert main([*words, "--engine", "keras", "--keras.optimizr", "sgd"]) == 2
    error = capsys.readouterr().err.splitlines()[-2]
    assert error == "error: unknown option '--keras.optimizr', did you mean 'keras.optimizer'?"


def test_the_backend_is_the_one_that_was_said_or_the_first_that_is_there(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "torchax" else object())
    assert backend_for(None) == "torch"
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    assert backend_for(None) == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert backend_for(None) == "tensorflow"
    assert backend_for("torch") == "torch"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflwo")
    with pytest.raises(InputError, match="KERAS_BACKEND is 'tensorflwo', did you mean 'tensorflow'"):
        backend_for(None)
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.delenv("KERAS_BACKEND")
    with pytest.raises(InputError, match="Keras on jax needs keras and jax and torchax"):
        backend_for(None)


def batch(rows, length, **more):
    ids = torch.arange(rows * length).reshape(rows, length) + 5
    return {"input_ids": ids, "labels": ids.clone(), **more}


def test_a_batch_is_filled_up_with_what_teaches_nothing():
    shapes = shapes_of(batch(2, 4, attention_mask=torch.ones(2, 4, dtype=torch.int64)), 3)
    filled = constant(batch(2, 3), shapes, padding=1)
    assert filled["input_ids"].tolist() == [[5, 6, 7, 1], [8, 9, 10, 1], [5, 6, 7, 1]]
    assert filled["labels"].tolist() == [[5, 6, 7, -100], [8, 9, 10, -100], [-100] * 4]
    assert filled["attention_mask"].tolist() == [[1, 1, 1, 0]] * 3
    assert {value.dtype for value in filled.values()} == {np.dtype("int32")}


def test_a_step_has_always_as_many_batches():
    shapes = shapes_of(batch(2, 4), 2)
    first, second, third = step_batches((batch(2, 4), batch(1, 4)), shapes, 0, 3)
    assert (first["labels"] != -100).all()
    assert (second["labels"] != -100).sum() == 4
    assert (third["labels"] == -100).all()
    assert third["input_ids"].tolist() == [first["input_ids"][0].tolist()] * 2


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (batch(2, 5), "'input_ids' in a batch is not what it was in others"),
        (batch(2, 4, extra=torch.zeros(2)), "'extra' is in some batches only"),
        ({"input_ids": torch.zeros(2, 4)}, "'labels' in a batch is not what it was in others"),
    ],
)
def test_a_batch_of_another_kind_is_refused(other, error):
    with pytest.raises(InputError, match=error):
        constant(other, shapes_of(batch(2, 4), 2), padding=0)


@pytest.mark.parametrize("more", [{"scale": torch.tensor(1.0)}, {"name": "a"}, {"others": torch.zeros(3)}])
def test_a_recipe_whose_batches_have_no_rows_is_refused(more):
    with pytest.raises(InputError, match="is not a row for each example"):
        shapes_of(batch(2, 4, **more), 2)


@pytest.mark.parametrize(
    ("done", "steps", "per_epoch", "found"),
    [
        (0, 12, 3, [(range(4), 3)]),
        (0, 2, 3, [(range(1), 2)]),
        (4, 12, 3, [(range(1, 2), 2), (range(2, 4), 3)]),
        (4, 5, 3, [(range(1, 2), 1)]),
        (0, 7, 3, [(range(2), 3), (range(2, 3), 1)]),
    ],
)
def test_a_training_is_divided_where_epochs_are_not_whole(done, steps, per_epoch, found):
    assert list(parts(done, steps, per_epoch)) == found
    assert sum(len(epochs) * each for epochs, each in found) == steps - done


@pytest.mark.parametrize(("name", "kind"), [("masked-lm", "bert"), ("causal-lm", "llama"), ("causal-lm", "mixtral")])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_one_shape_is_the_recipes(name, kind, smoothing):
    from transformers import set_seed

    from lmtasks.api import resolve
    from lmtasks.testing.specimens import tiny_config

    recipe = load_catalog().recipe(name)
    set_seed(0)
    config = tiny_config(kind, recipe, "output_router_logits=true" if kind == "mixtral" else "")
    model = resolve(recipe.model_class).from_config(config).eval()
    given = batch(2, 16)
    given["labels"][:, ::3] = -100
    terms, _ = loss_terms(recipe.loss(model, {**given, **({"label_smoothing": smoothing} if smoothing else {})}))
    wanted = torch.autograd.grad(terms[""].sum, list(model.parameters()), allow_unused=True)
    sums, counts = RecipeLoss(model, recipe, smoothing)(given)
    found = torch.autograd.grad(sums.sum(), list(model.parameters()), allow_unused=True)
    assert sums.tolist() == pytest.approx([float(terms[""].sum.detach())], rel=1e-6)
    assert counts.tolist() == [int(terms[""].count)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_another_backend_is_refused(tmp_path):
    with pytest.raises(InputError, match="the checkpoint is not of Keras"):
        require_backend(tmp_path, "jax")
    (tmp_path / "keras.json").write_text('{"backend": "torch", "optimizer": "AdamW"}')
    with pytest.raises(InputError, match="the checkpoint is of Keras on torch, not on jax"):
        require_backend(tmp_path, "jax")
    require_backend(tmp_path, "torch")
