"""What ``save`` leaves is a folder like that of any run."""

import json
import math

import lmtasks_keras
import pytest
import torch
import transformers

import lmtasks
from lmtasks import InputError, RunError
from lmtasks.artifacts.publish import finished_record
from lmtasks.artifacts.run_folder import require_intact
from lmtasks.cli.app import main

pytestmark = pytest.mark.keras
keras = pytest.importorskip("keras", reason="tox run -e keras")


@pytest.fixture(scope="module")
def fitted(folders, texts):
    """A model after two epochs."""
    model = lmtasks_keras.model(folders["gpt2"], batch_size=8, block_size=32)
    train, held_out = (
        lmtasks_keras.dataset(part, model, training=one) for part, one in zip(texts, (True, False), strict=True)
    )
    model.compile(optimizer=keras.optimizers.SGD(0.5))
    model.fit(train, validation_data=held_out, epochs=2, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    return lmtasks_keras.save(fitted, tmp_path_factory.mktemp("saved") / "model")


def test_transformers_alone_finds_the_loss_that_keras_has(fitted, saved):
    """The oracle is transformers' own loss, a mean over the labels of one batch."""
    model = transformers.AutoModelForCausalLM.from_pretrained(saved)
    batch = {name: torch.from_numpy(value).long() for name, value in fitted.task.example.items()}
    with torch.no_grad():
        loss = float(model(**batch).loss)
    assert fitted.loss_of(fitted.task.example) == pytest.approx(loss, abs=1e-4)
    ours, theirs = fitted.pretrained().state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_evaluate_predict_report_and_load_run_take_it_as_any_run(saved, texts, capsys):
    record = finished_record(saved)
    require_intact(saved)
    figures = lmtasks.evaluate(saved, eval_dataset=texts[1])
    assert figures["eval_loss"] == pytest.approx(record["metrics"]["eval_loss"], abs=1e-6)
    assert record["metrics"]["perplexity"] == pytest.approx(math.exp(figures["eval_loss"]), rel=1e-6)
    run = lmtasks.load_run(saved)
    assert run.metrics == record["metrics"]
    assert list(run.history["loss"]) == [line["loss"] for line in _log(saved) if "loss" in line]
    assert run.predict("the fox", max_new_tokens=3)[0]["generated_text"].startswith("the fox")
    assert run.report().is_file()
    assert run.verdict is not None
    capsys.readouterr()
    assert main(["evaluate", str(saved)]) == 2, "the text was in memory"
    assert "no data given" in capsys.readouterr().err


def test_record_and_card_say_how_it_was_trained(fitted, saved):
    record, card = finished_record(saved), (saved / "README.md").read_text()
    assert record["engine"] == "keras"
    assert record["training"] | {"learning_rate": 0.5, "num_train_epochs": 2, "optimizer": "SGD"} == record["training"]
    assert record["training"]["max_steps"] == 2 * len(fitted.apart.fitted_on)
    assert record["training"]["keras_backend"] == keras.config.backend()
    assert record["versions"]["keras"] == keras.__version__
    assert record["data"]["train"]["blocks"] == len(fitted.apart.fitted_on.examples)
    assert f"{record['metrics']['perplexity']:.4f}" in card
    assert "learning_curve.svg" in card
    assert "| Training | `optimizer` | SGD |" in card
    assert [line["step"] for line in _log(saved)] == [n * len(fitted.apart.fitted_on) for n in (1, 1, 2, 2)]


def test_a_folder_of_its_own_is_replaced_and_no_other(fitted, saved, tmp_path, lmtasks_run):
    from lmtasks.builtin.causal_lm import CAUSAL_LM

    place = lmtasks_keras.save(fitted, tmp_path / "model", measure=False)
    assert finished_record(place)["metrics"].keys() == {"train_loss", "train_runtime", "eval_loss"}
    lmtasks_keras.save(fitted, place)
    assert "perplexity" in finished_record(place)["metrics"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    run = lmtasks_run(CAUSAL_LM, max_steps=1)
    for folder in (tmp_path / "other", run.output_dir):
        with pytest.raises(InputError, match="holds something else"):
            lmtasks_keras.save(fitted, folder)
    with pytest.raises(InputError, match="a str cannot be saved here"):
        lmtasks_keras.save("model", tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_schedule_is_recorded_by_name_and_its_last_rate(fitted, tmp_path):
    fitted.compile(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.PolynomialDecay(0.1, 2, 0.05)))
    fitted.fit(fitted.apart.fitted_on, epochs=1, steps_per_epoch=3, verbose=0)
    record = finished_record(lmtasks_keras.save(fitted, tmp_path / "model"))
    assert record["training"]["learning_rate_schedule"] == "PolynomialDecay"
    assert record["training"]["learning_rate"] == 0.05
    assert "eval_loss" not in record["metrics"], "nothing was held out"


def test_what_is_saved_wrongly_is_found_out(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(fitted.layer, "copy_to", lambda model: None)
    weight = fitted.layer.named["transformer.wte.weight"]
    before = keras.ops.convert_to_numpy(weight).copy()
    weight.assign(before[::-1])
    if keras.config.backend() == "torch":  # whose weights are the model's own: they cannot be saved wrongly
        lmtasks_keras.save(fitted, tmp_path / "model", measure=False)
    else:
        with pytest.raises(RunError, match="is not the one that Keras has"):
            lmtasks_keras.save(fitted, tmp_path / "model", measure=False)
        assert json.loads((tmp_path / "model" / "run.json").read_text())["status"] == "running"
    weight.assign(before)


def _log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
