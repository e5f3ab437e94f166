"""Keras itself, in processes of its own: ``tox run -e keras``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lmtasks_keras import KERAS
from safetensors.torch import load_file

from lmtasks.cli.app import main
from lmtasks.testing import check_engine

pytestmark = pytest.mark.keras

CALLBACKS = Path(__file__).with_name("keras_callbacks.py")

STILL = ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"
"""What turns off dropout, which Keras draws otherwise than torch."""

BACKENDS = ("jax", "tensorflow", "torch")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Callbacks of the tests can be imported, and tell into a file."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("LMTASKS_KERAS_TOLD", str(tmp_path / "told.txt"))
    monkeypatch.chdir(tmp_path)


def told():
    return Path("told.txt").read_text().splitlines()


def log(folder):
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in log(folder) if "loss" in line]


@pytest.mark.parametrize("backend", BACKENDS)
def test_its_steps_are_the_trainers(backend):
    proof = check_engine(KERAS, options={"backend": backend})
    assert {name for name, outcome in proof.checks.items() if outcome.state == "skipped"} == set()


def test_callbacks_see_one_training_and_its_epochs(words, capsys):
    many = [*words, "--max_train_samples", "20", "--max_steps", "7", "--save_steps", "3", "--keras_backend", "torch"]
    many += ["--engine", "keras", "--output_dir", "out", "--keras.callback", "keras_callbacks:Telling"]
    assert main([*many, "--eval_strategy", "epoch"]) == 0
    evaluations = [line["eval_loss"] for line in log("out") if "eval_loss" in line]
    epochs = [f"epoch {n} ['loss', 'step_loss', 'val_loss'] {loss}" for n, loss in enumerate(evaluations[:2])]
    assert told() == ["begin", *epochs, "end"]
    stdout, stderr = capsys.readouterr()
    assert "an epoch has ended" in stderr
    assert "an epoch has ended" not in stdout


def test_nothing_is_compiled_after_the_first_step(words):
    long = [*words, "--max_train_samples", "9", "--gradient_accumulation_steps", "2", "--max_steps", "5"]
    long += ["--engine", "keras", "--keras.backend", "jax", "--output_dir", "out"]
    assert main([*long, "--keras.callback", "keras_callbacks:Compiling"]) == 0
    first, *others = [line.split()[1] for line in told()]
    assert first == "True"
    # What Keras does once for a batch, such as reading a number, it may compile; a step it may not.
    assert others[2:] == ["False"] * len(others[2:])


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_an_adapter_is_trained_as_by_the_trainer(backend, words):
    """Most parameters stay as they are there, and those that learn stand between them."""
    words[words.index("--config_overrides") + 1] += STILL
    assert main([*words, "--max_steps", "1", "--output_dir", "first"]) == 0
    text = words[words.index("--train_file") + 1]
    how = ["run", "masked-lm", "--model", "first", "--train_file", text, "--sample_by", "paragraph"]
    how += ["--block_size", "32", "--use_peft", "true", "--lora_r", "2", "--lora_dropout", "0"]
    how += ["--learning_rate", "0.05", "--max_steps", "4", "--per_device_train_batch_size", "4", "--logging_steps", "1"]
    how += ["--report_to", "none"]
    assert main([*how, "--output_dir", "plain"]) == 0
    assert main([*how, "--output_dir", "keras", "--engine", "keras", "--keras.backend", backend]) == 0
    assert losses("keras") == pytest.approx(losses("plain"), abs=1e-4)
    assert len({round(loss, 3) for loss in losses("keras")}) > 1


def test_a_callback_may_end_training_early(words):
    short = [*words, "--max_train_samples", "8", "--max_steps", "20", "--engine", "keras", "--keras.backend", "torch"]
    assert main([*short, "--output_dir", "out", "--keras.callback", "keras_callbacks:stopping"]) == 0
    assert 2 <= len(losses("out")) < 20
    assert json.loads(Path("out/run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("optimizer", ["sgd", "keras_callbacks:sgd"])
def test_an_optimizer_of_keras(optimizer, words):
    words[words.index("--config_overrides") + 1] += STILL
    how = ["--learning_rate", "0.01", "--lr_scheduler_type", "constant", "--max_grad_norm", "0"]
    assert main([*words, *how, "--output_dir", "plain", "--optim", "sgd"]) == 0
    keras = ["--engine", "keras", "--keras.backend", "torch", "--keras_optimizer", optimizer]
    assert main([*words, *how, "--output_dir", "keras", *keras]) == 0
    assert losses("keras") == pytest.approx(losses("plain"), abs=1e-4)


BAD = [
    (["--keras.optimizer", "adm"], "Keras has no optimizer 'adm', did you mean 'adam'?", "one of adadelta"),
    (
        ["--keras.optimizer", "keras_callbacks:number"],
        "--keras.optimizer keras_callbacks:number makes no Keras optim",
        "let",
    ),
    (
        ["--keras.callback", "keras_callbacks:number"],
        "--keras.callback keras_callbacks:number makes no Keras callb",
        "let it",
    ),
    (
        ["--keras.callback", "nowhere:none"],
        "--keras.callback nowhere:none: No module named 'nowhere'",
        "module:factory",
    ),
    (["--keras.callback", "nowhere"], "--keras.callback nowhere names no function", "module:factory"),
    (
        ["--keras.callback", "keras_callbacks:failing"],
        "--keras.callback keras_callbacks:failing: ZeroDivisionError: nothing to divide by",
        "let it make a keras.callbacks.Callback without arguments",
    ),
    (
        ["--keras.callback", "keras_callbacks:Lost"],
        "--keras.callback keras_callbacks:Lost: 'keras_callbacks:Lost' does not exist",
        "module:factory",
    ),
    (
        ["--keras.optimizer", "nowhere:none"],
        "--keras.optimizer nowhere:none: No module named 'nowhere'",
        "module:factory",
    ),
    (
        ["--keras.optimizer", "keras_callbacks:failing"],
        "--keras.optimizer keras_callbacks:failing: ZeroDivisionError: nothing to divide by",
        "let it make a keras.optimizers.Optimizer",
    ),
    (
        ["--keras.callback", "keras_callbacks:patient"],
        "--keras.callback keras_callbacks:patient watches val_loss, and training is not evaluated",
        "--eval_strategy epoch",
    ),
    (
        ["--keras.optimizer", "keras_callbacks:fixed"],
        "--keras.optimizer keras_callbacks:fixed takes no learning_rate, which is the run's",
        "let it take learning_rate",
    ),
    (["--bf16", "true"], "", ""),
]


@pytest.mark.parametrize(("more", "error", "hint"), BAD)
def test_a_bad_request_is_refused_before_anything_is_written(more, error, hint, words, capsys):
    assert main([*words, "--engine", "keras", "--keras.backend", "torch", "--output_dir", "out", *more]) == 2
    said, what_to_type = capsys.readouterr().err.splitlines()[-2:]
    assert said.startswith(f"error: {error}")
    assert what_to_type.startswith(f"hint: {hint}")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("callback", "told", "hint"),
    [
        ("Dying", "the process in which Keras ran has ended: killed by signal 9", "see whether memory was short"),
        ("Failing", "Keras has failed: ZeroDivisionError: nothing to divide by", f"see {CALLBACKS}, line "),
    ],
)
def test_a_process_that_dies_or_fails_ends_the_run(callback, told, hint, words, capsys):
    bad = [*words, "--engine", "keras", "--keras.backend", "torch", "--output_dir", "out"]
    assert main([*bad, "--keras.callback", f"keras_callbacks:{callback}"]) == 3
    error, what_to_do = capsys.readouterr().err.splitlines()[-2:]
    assert error == f"error: {told}"
    assert what_to_do.startswith(f"hint: {hint}")
    assert json.loads(Path("out/run.json").read_text())["status"] == "running"  # as of any run that did not end


def test_a_model_that_asks_for_values_is_refused_with_another_backend(words, capsys):
    flaubert = [*words, "--model_type", "flaubert", "--config_overrides", "n_layers=2,emb_dim=32,n_heads=2"]
    flaubert += ["--engine", "keras", "--output_dir", "out"]
    assert main([*flaubert, "--keras.backend", "jax"]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: masked-lm cannot train this flaubert model by Keras on jax: it cannot be traced")
    assert hint == "hint: --keras.backend torch, or --engine trainer"
    assert not Path("out").exists()
    assert main([*flaubert, "--keras.backend", "torch"]) == 0


def test_the_embedding_of_padding_stays_empty_where_the_type_wants_that(words):
    """What sees to it does not come along into another process by itself."""
    words[1] = "causal-lm"
    shape = "num_hidden_layers=1,hidden_size=16,num_attention_heads=2,num_key_value_heads=2,intermediate_size=32"
    shape += ",q_lora_rank=8,kv_lora_rank=8,qk_rope_head_dim=4,qk_nope_head_dim=4,v_head_dim=8"
    youtu = [*words, "--model_type", "youtu", "--config_overrides", shape, "--weight_decay", "0"]
    assert main([*youtu, "--engine", "keras", "--keras.backend", "torch", "--output_dir", "out"]) == 0
    padding = json.loads(Path("out/config.json").read_text())["pad_token_id"]
    table = load_file("out/model.safetensors")["model.embed_tokens.weight"]
    assert not table[padding].any()
    assert table[padding - 1].any()


def test_a_run_goes_on_with_its_own_backend_only(words, capsys, monkeypatch):
    """Also where the variable says which, and no option does."""
    words = [*words, "--engine", "keras", "--output_dir", "out", "--save_steps", "2"]
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert main([*words, "--max_steps", "2"]) == 0
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main([*words, "--resume_from_checkpoint", "true"]) == 2
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error == "error: the checkpoint is of Keras on torch, not on jax"
    assert hint == "hint: --keras.backend torch"
