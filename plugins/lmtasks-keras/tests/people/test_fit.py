"""``model``, ``dataset`` and ``fit``, against lmtasks' own evaluation and the Trainer's own training."""

import os
import shutil

import lmtasks_keras
import numpy as np
import pytest

import lmtasks
from lmtasks import InputError

pytestmark = pytest.mark.keras
keras = pytest.importorskip("keras", reason="tox run -e keras")


@pytest.fixture(scope="module")
def masked(folders, texts):
    """A masked model with what it is trained and evaluated on; whoever trains it compiles it first."""
    model = lmtasks_keras.model(folders["roberta"], batch_size=8, block_size=32)
    train, held_out = texts
    return model, lmtasks_keras.dataset(train, model), lmtasks_keras.dataset(held_out, model, training=False)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_fit_ends_where_the_trainer_ends(kind, folders, texts, tmp_path):
    """Order, masks, the short last batch and the loss are those of a run, with an optimizer that both have."""
    train, held_out = texts
    recipe = {"roberta": "masked-lm", "gpt2": "causal-lm"}[kind]
    run = lmtasks.run(
        recipe,
        model=str(folders[kind]),
        train_dataset=train,
        eval_dataset=held_out,
        block_size=32,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        output_dir=tmp_path / "run",
    )
    model = lmtasks_keras.model(folders[kind], block_size=32)
    data, evaluation = lmtasks_keras.dataset(train, model), lmtasks_keras.dataset(held_out, model, training=False)
    assert len(data.examples) % 8, "the last batch is short"
    before = lmtasks.evaluate(folders[kind], eval_dataset=held_out, block_size=32)["eval_loss"]
    assert model.evaluate(evaluation, verbose=0) == pytest.approx(before, abs=1e-5)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    history = model.fit(data, validation_data=evaluation, epochs=2, verbose=0).history
    assert history["val_loss"][-1] == pytest.approx(run.metrics["eval_loss"], abs=1e-4)
    assert history["val_loss"][-1] < before - 0.1


def test_batches_have_one_shape_and_what_fills_the_last_has_no_target(masked):
    _, train, _ = masked
    batches = [batch for (batch,) in train]
    assert {name: value.shape for name, value in batches[0].items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "labels"), (8, 32)
    )
    assert len({str({name: (value.shape, value.dtype) for name, value in batch.items()}) for batch in batches}) == 1
    rest = len(train.examples) % 8
    assert (batches[-1]["labels"][rest:] == -100).all()
    assert (batches[-1]["labels"][:rest] != -100).any(axis=1).all()


def test_an_epoch_has_masks_and_an_order_of_its_own_and_evaluation_has_not(masked):
    _, train, held_out = masked
    seen = {}
    for data in (train, held_out):
        for epoch in (0, 1, 0):
            data.start_epoch(epoch)
            seen.setdefault(data, []).append([batch["labels"] for (batch,) in data])
    first, second, again = (np.concatenate(labels) for labels in seen[train])
    assert (first == again).all()
    assert (first != second).any()
    assert (np.concatenate(seen[held_out][0]) == np.concatenate(seen[held_out][1])).all()


def test_fit_that_goes_on_has_the_masks_of_the_next_epoch(masked):
    model, train, _ = masked
    model.compile(optimizer="sgd")
    model.fit(train, initial_epoch=4, epochs=5, verbose=0)
    (now,) = train[0]
    train.start_epoch(4)
    (fourth,) = train[0]
    train.start_epoch(0)
    (first,) = train[0]
    assert (now["labels"] == fourth["labels"]).all()
    assert (now["labels"] != first["labels"]).any()


def test_fit_that_was_interrupted_and_restored_ends_as_one_in_one_go(folders, texts, tmp_path):
    """With dropout: it goes on with that of the third epoch, and not with that of the first."""
    shape = "n_embd=16,n_layer=1,n_head=2,n_positions=32,resid_pdrop=0.3"
    new = {"recipe": "causal-lm", "model_type": "gpt2", "tokenizer_name": str(folders["gpt2"])}

    def losses(*more):
        model = lmtasks_keras.model(**new, config_overrides=shape, block_size=16, seed=3)
        data = lmtasks_keras.dataset(texts[0][:20], model)
        model.compile(optimizer=keras.optimizers.SGD(0.5))
        return model.fit(data, epochs=3, callbacks=[*more], verbose=0).history["loss"]

    class Keeping(keras.callbacks.Callback):
        """Keeps the backup that an interruption after two epochs would have left."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                shutil.copytree(tmp_path / "backup", tmp_path / "kept")

    whole = losses(keras.callbacks.BackupAndRestore(tmp_path / "backup"), Keeping())
    assert losses(keras.callbacks.BackupAndRestore(tmp_path / "kept")) == whole[2:]
    assert len(set(whole)) == 3


def test_weights_keep_their_names_where_some_are_not_trained(masked, folders):
    import torch
    import transformers
    from lmtasks_keras.layer import loss_layer

    model, _, _ = masked
    pretrained = transformers.AutoModelForMaskedLM.from_pretrained(folders["roberta"])
    wanted = dict(pretrained.named_parameters())
    first = next(iter(wanted))
    wanted.pop(first).requires_grad_(False)
    named = loss_layer(pretrained, model.task.recipe, model.task.shapes).named
    assert named.keys() == wanted.keys()
    for name, variable in named.items():
        assert torch.equal(torch.from_numpy(np.array(keras.ops.convert_to_numpy(variable))), wanted[name].detach())


def test_what_is_frozen_stays_and_the_rest_moves(masked):
    model, train, _ = masked
    frozen = {name: one for name, one in model.layer.named.items() if "embeddings" in name}
    before = {name: keras.ops.convert_to_numpy(one).copy() for name, one in model.layer.named.items()}
    for variable in frozen.values():
        variable.trainable = False
    try:
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        model.fit(train, steps_per_epoch=2, verbose=0)
    finally:
        for variable in frozen.values():
            variable.trainable = True
    moved = {name for name, one in model.layer.named.items() if (keras.ops.convert_to_numpy(one) != before[name]).any()}
    assert moved
    assert not moved & frozen.keys()


def test_callbacks_optimizers_and_schedules_are_those_of_keras(masked, tmp_path):
    model, train, held_out = masked
    best = tmp_path / "best.weights.h5"
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 40, warmup_target=0.02, warmup_steps=4)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_list=model.undecayed)
    model.compile(optimizer=optimizer)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=1.0, patience=1)
    keep = keras.callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True, save_weights_only=True)
    history = model.fit(train, validation_data=held_out, epochs=9, callbacks=[stop, keep], verbose=0).history
    assert len(history["loss"]) < 9, "nothing gets better by a whole nat twice"
    kept = lmtasks_keras.model(model.task.request.model.model_name_or_path, batch_size=8, block_size=32)
    assert kept.evaluate(held_out, verbose=0) > min(history["val_loss"]) + 0.1
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):  # it is another one
        kept.load_weights(best)
    assert kept.evaluate(held_out, verbose=0) == pytest.approx(min(history["val_loss"]), abs=1e-5)
    assert model.undecayed
    names = {name for name, one in model.layer.named.items() if any(one is kept for kept in model.undecayed)}
    assert names == {name for name in model.layer.named if name.endswith("bias") or "norm" in name.lower()}


def test_tensorboard_writes_its_events(masked, tmp_path):
    pytest.importorskip("tensorboard")
    model, train, _ = masked
    model.compile(optimizer="sgd")
    model.fit(train, epochs=1, steps_per_epoch=2, callbacks=keras.callbacks.TensorBoard(tmp_path), verbose=0)
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_transformers_model_has_the_weights_of_now(masked):
    import torch

    model, train, _ = masked
    before = {name: value.clone() for name, value in model.pretrained().state_dict().items()}
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(train, epochs=1, steps_per_epoch=2, verbose=0)
    after = model.pretrained()
    assert not after.training
    moved = [name for name, value in after.state_dict().items() if not torch.equal(value, before[name])]
    assert {"roberta.embeddings.word_embeddings.weight", "lm_head.dense.bias"} <= set(moved)


@pytest.fixture
def run(folders, texts, tmp_path):
    """A run on the text of a file, which is ``text.txt``."""
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(texts[0]))
    how = {"block_size": 32, "max_steps": 2, "per_device_train_batch_size": 4}
    folder = str(folders["roberta"])
    return lmtasks.run("masked-lm", model=folder, train_file=str(file), output_dir=tmp_path / "run", **how)


def test_a_run_is_trained_on_with_its_own_text_and_options(run):
    model = lmtasks_keras.model(run.output_dir)
    held_out = lmtasks_keras.dataset(run.output_dir, training=False)
    assert model.task.batch_size == held_out.task.batch_size == 4
    assert model.evaluate(held_out, verbose=0) == pytest.approx(run.metrics["eval_loss"], abs=1e-5)
    train = lmtasks_keras.dataset(run.output_dir, model)
    assert len(train.examples) == run.plan.train["blocks"]


def test_a_new_model_needs_no_folder(folders):
    shape = "n_embd=16,n_layer=1,n_head=2,n_positions=64"
    model = lmtasks_keras.model(
        recipe="causal-lm",
        model_type="gpt2",
        tokenizer_name=str(folders["gpt2"]),
        config_overrides=shape,
        block_size=16,
    )
    data = lmtasks_keras.dataset(["one text " * 40], model, training=False)
    assert model.evaluate(data, verbose=0) == pytest.approx(np.log(len(model.task.processor)), abs=0.2)


def test_texts_may_be_for_the_name_of_a_recipe_and_have_columns(folders, masked):
    model, _, _ = masked
    rows = [{"body": "one text " * 40}] * 3
    import datasets

    data = datasets.Dataset.from_list(rows)
    ours = lmtasks_keras.dataset(data, model, text_column="body", shuffle=False)
    folder = str(folders["roberta"])
    named = lmtasks_keras.dataset(
        data, "masked-lm", model=folder, block_size=32, batch_size=8, text_column="body", shuffle=False, seed=7
    )
    named.require_for(model.task)
    assert (ours[0][0]["attention_mask"] == named[0][0]["attention_mask"]).all()
    assert (ours[0][0]["labels"] != named[0][0]["labels"]).any(), "another seed draws other masks"


# --- refusals ---


def _refusal(call, *arguments, **named):
    with pytest.raises(InputError) as refused:
        call(*arguments, **named)
    return f"{refused.value.message}\n{refused.value.hint}"


def test_what_cannot_become_a_keras_model_is_refused(folders, tmp_path):
    folder = str(folders["roberta"])
    assert "neither a model nor a recipe is named" in _refusal(lmtasks_keras.model)
    assert "only a run trains a tokenizer" in _refusal(lmtasks_keras.model, recipe="masked-lm")
    assert "no adapters" in _refusal(lmtasks_keras.model, folder, use_peft=True)
    assert "no model folder" in _refusal(lmtasks_keras.model, str(tmp_path / "nothing"), "masked-lm")


def test_a_recipe_that_changes_its_model_at_every_step_is_refused(folders, lmtasks_catalog):
    from dataclasses import replace

    from lmtasks.builtin.masked_lm import MASKED_LM

    lmtasks_catalog(recipes=[replace(MASKED_LM, name="other-lm", before_step=lambda model, options, step: None)])
    assert "other-lm changes its model before each step" in _refusal(
        lmtasks_keras.model, folders["roberta"], "other-lm"
    )


def test_a_recipe_that_is_not_about_text_is_refused(folders, lmtasks_catalog):
    from dataclasses import replace

    from lmtasks.builtin.masked_lm import MASKED_LM

    lmtasks_catalog(recipes=[replace(MASKED_LM, name="other-lm", preprocess=lambda processor, options: object())])
    assert "other-lm is not about blocks of text" in _refusal(lmtasks_keras.model, folders["roberta"], "other-lm")


def test_losses_metrics_and_other_data_are_refused(masked, folders, texts):
    model, train, held_out = masked
    assert "leave loss= out" in _refusal(model.compile, "sgd", "mse")
    assert "leave metrics= out" in _refusal(model.compile, "sgd", metrics=["accuracy"])
    model.compile(optimizer="sgd")
    assert "not from a ndarray" in _refusal(model.fit, np.zeros((8, 32)))
    assert "not from a list" in _refusal(model.evaluate, [1])
    assert "not from a ndarray" in _refusal(model.fit, train, validation_data=np.zeros(3))
    larger = lmtasks_keras.dataset(texts[1], model, batch_size=16)
    assert "batches of 8 examples" in _refusal(model.fit, larger)
    assert "other options" in _refusal(
        model.evaluate, lmtasks_keras.dataset(texts[1], "masked-lm", model=str(folders["roberta"]), block_size=16)
    )
    assert "model.pretrained()" in _refusal(model.predict, held_out)
    assert "lmtasks_keras.save(model, FOLDER)" in _refusal(model.save, "model.keras")
    assert "no run.json" in _refusal(lmtasks_keras.dataset, str(folders["roberta"]), model)


def test_arguments_that_would_change_nothing_are_refused(masked):
    model, train, held_out = masked
    model.compile(optimizer="sgd")
    assert "class_weight means nothing" in _refusal(model.fit, train, class_weight={0: 2.0})
    assert "batch_size=N of lmtasks_keras.model" in _refusal(model.fit, train, None, 4)
    assert "validation_batch_size means" in _refusal(
        model.fit, train, validation_data=held_out, validation_batch_size=4
    )
    assert "batch_size means nothing" in _refusal(model.evaluate, held_out, batch_size=4)
    weights = np.ones(8, dtype="float32")
    assert "the recipe weighs" in _refusal(model.train_on_batch, train[0][0], sample_weight=weights)
    assert "leave loss_weights= out" in _refusal(model.compile, "sgd", loss_weights=[2.0])
    assert "model.pretrained()" in _refusal(model.predict_on_batch, train[0][0])


def test_values_that_would_change_nothing_are_refused(masked, run, folders, texts):
    model, folder = masked[0], folders["roberta"]
    assert "did you mean 'text_column'" in _refusal(lmtasks_keras.dataset, texts[1], model, text_colum="body")
    assert "(FOLDER, block_size=...)" in _refusal(lmtasks_keras.dataset, texts[1], model, block_size=16)
    assert "fit(epochs=" in _refusal(lmtasks_keras.dataset, texts[1], model, num_train_epochs=3)
    assert "text_column means nothing" in _refusal(lmtasks_keras.dataset, run.output_dir, model, text_column="body")
    assert "text_column means nothing" in _refusal(lmtasks_keras.dataset, run.output_dir, text_column="body")
    assert "(TEXTS, model, filter=...)" in _refusal(lmtasks_keras.model, folder, filter="len(text) > 9")
    assert "compile(optimizer=...)" in _refusal(lmtasks_keras.model, folder, learning_rate=0.1)
    assert "batch_size=N" in _refusal(lmtasks_keras.model, folder, train_batch_size=4)
    for wrong in (0, -1, "8"):
        assert f"batch_size cannot be {wrong!r}" in _refusal(lmtasks_keras.model, folder, batch_size=wrong)


def test_what_keras_own_format_would_hold_is_refused_before_anything_is_trained(masked, tmp_path):
    import copy

    model, train, _ = masked
    model.compile(optimizer="sgd")
    whole = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    assert "save_weights_only=True for the ModelCheckpoint" in _refusal(model.fit, train, callbacks=[whole])
    assert model.steps == 0
    assert "lmtasks_keras.model(FOLDER) once more makes another" in _refusal(keras.models.clone_model, model)
    assert "lmtasks_keras.save" in _refusal(copy.deepcopy, model)
    assert "lmtasks_keras.save" in _refusal(model.export, str(tmp_path / "model"))
    assert "lmtasks_keras.save" in _refusal(keras.saving.save_model, model, tmp_path / "model.keras")


def test_another_precision_of_keras_is_refused(folders):
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert "Keras is set to bfloat16" in _refusal(lmtasks_keras.model, folders["roberta"])
    finally:
        keras.config.set_dtype_policy("float32")
    try:
        keras.config.set_floatx("float64")
        assert "Keras is set to float64" in _refusal(lmtasks_keras.model, folders["roberta"])
    finally:
        keras.config.set_floatx("float32")


def test_a_backend_that_is_said_too_late_is_refused(monkeypatch):
    other = "torch" if keras.config.backend() != "torch" else "jax"
    monkeypatch.setenv("KERAS_BACKEND", other)
    refusal = _refusal(getattr, lmtasks_keras, "model")
    assert refusal.startswith(f"Keras computes with {keras.config.backend()} already, and KERAS_BACKEND is '{other}'")
    assert "set KERAS_BACKEND before anything imports Keras" in refusal


def test_text_of_a_run_that_has_changed_is_refused(run):
    file = run.output_dir.parent / "text.txt"
    file.write_text(file.read_text()[::-1])
    assert "no longer there as it was" in _refusal(lmtasks_keras.dataset, run.output_dir)


@pytest.mark.parametrize("package", ["keras", "torchax"])
def test_what_is_not_installed_is_named_with_what_to_type(package):
    import subprocess
    import sys

    code = f"""
import sys, importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else found(name, *rest)
import lmtasks_keras
try:
    lmtasks_keras.model
except lmtasks_keras.backends.InputError as error:
    print(error.message, error.hint)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == (
        f"Keras on jax needs {package}, which cannot be imported here pip install 'lmtasks-keras[jax]'"
    ), done.stderr


def test_the_package_imports_no_keras_before_it_is_used():
    import subprocess
    import sys

    code = "import sys, lmtasks_keras; sys.exit(any(name in sys.modules for name in ('keras', 'torch', 'jax')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, lmtasks; sys.exit('keras' not in lmtasks.load_catalog().engines or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "as the plugin that it is, too"
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        lmtasks_keras.modle  # noqa: B018
