"""The recipe as people use it: the same commands, the same promises as for text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
import transformers
from lmtasks_masked_speech import MASKED_SPEECH, MaskedSpeechOptions
from small import RATE, chirp, config_of, extractor

import lmtasks
from lmtasks import InputError, RunError
from lmtasks.api import options_of
from lmtasks.artifacts.publish import PUBLISHED
from lmtasks.artifacts.run_folder import save_into, unsealed
from lmtasks.cli.app import main
from lmtasks.config.request import configure
from lmtasks.runs.prepare import prepare
from lmtasks.runs.verify import verify

SMALL: dict[str, Any] = {
    "min_seconds": 0.5,
    "max_seconds": 1.2,
    "num_negatives": 9,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "test_size": 0.3,
}


def train(model: Path, data: Path, out: Path, recipe: Any = "masked-speech", **values: Any) -> Any:
    given = {"model": str(model), "train_file": [str(data)], "output_dir": str(out), "max_steps": 4, **SMALL, **values}
    return lmtasks.run(recipe, **given)


@pytest.fixture(scope="module")
def run(model_folder: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train(model_folder, recordings, tmp_path_factory.mktemp("run") / "out", max_steps=8)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(folder) / "model.safetensors")


# --- the commands ---


def test_a_run_leaves_its_figures(run: Any) -> None:
    figures = json.loads((run.output_dir / "eval_results.json").read_text())
    assert figures.keys() == {"eval_loss", "accuracy", "codebook_perplexity", "eval_targets"}
    assert 0 < figures["eval_loss"] <= np.log(1 + 9) + 1
    assert 0 <= figures["accuracy"] <= 1 and 2 <= figures["codebook_perplexity"] <= 48
    assert "train_audio_seconds_per_second" in run.metrics
    card = (run.output_dir / "README.md").read_text()
    assert "| train | 7 | recordings |" in card and "Codebook perplexity" in card
    assert 'lmtasks predict REPO_OR_FOLDER "FILE.wav"' in card
    assert "pip install lmtasks lmtasks-masked-speech" in card


def test_all_that_is_needed_may_be_published(run: Any) -> None:
    record = json.loads((run.output_dir / "run.json").read_text())
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(record["files"])
    assert all(any(fnmatchcase(name, pattern) for pattern in PUBLISHED) for name in record["files"])


def test_evaluation_is_the_same_whatever_the_batch(run: Any) -> None:
    one, many = (lmtasks.evaluate(run.output_dir, per_device_eval_batch_size=size) for size in (1, 3))
    assert one.keys() == many.keys()
    for name, value in one.items():
        assert value == pytest.approx(many[name], rel=1e-5)
        assert value == pytest.approx(run.metrics[name], rel=1e-5)


def test_the_model_predicts_codes(run: Any, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(recordings / "8.wav"), str(recordings / "0.flac"), str(recordings / "4.wav")]
    alone = [run.predict(file) for file in files]
    assert run.predict(files, batch_size=2) == alone
    first = alone[0]
    assert first["seconds"] == 1.48
    assert len(first["codes"]) == 73 and all(0 <= code < 24 for step in first["codes"] for code in step)
    assert 0 <= first["contrastive_accuracy"] <= 1 and first["contrastive_loss"] > 0
    assert main(["predict", str(run.output_dir), *files, "--num_negatives", "3"]) == 0
    told = capsys.readouterr().out
    assert "1.48 seconds, 73 steps; contrastive accuracy" in told
    assert re.search(r"codes (\d+-\d+ ){12}\.\.\.", told)


def test_codes_do_not_depend_on_where_a_recording_is_cut_by_more_than_its_edges(run: Any, recordings: Path) -> None:
    whole, parts = (run.predict(str(recordings / "8.wav"), max_seconds=most) for most in (20.0, 0.8))
    assert len(parts["codes"]) == 2 * 36 == len(whole["codes"]) - 1


def test_figures_for_people(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run.output_dir)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^loss +\d+\.\d+ nats per target$", told, re.MULTILINE)
    assert re.search(r"^accuracy +\d+\.\d%$", told, re.MULTILINE)
    assert re.search(r"^codebook perplexity \d", told, re.MULTILINE)
    assert "\nperplexity" not in told and "bits per byte" not in told


def test_a_small_model_without_a_word_about_it(recordings: Path, tmp_path: Path) -> None:
    done = lmtasks.run(
        "masked-speech",
        train_file=[str(recordings / "*.wav")],
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        min_seconds=0.5,
    )
    assert done.started_small and list(transformers.AutoConfig.from_pretrained(done.output_dir).conv_dim) == [64] * 7
    saved = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert saved["sampling_rate"] == 16_000 and not saved["return_attention_mask"]


@pytest.mark.parametrize("kind", ["layer", "conformer"])
def test_the_other_models_train_as_well(kind: str, recordings: Path, tmp_path: Path) -> None:
    transformers.AutoModelForPreTraining.from_config(config_of(kind)).save_pretrained(tmp_path / "model")
    extractor(return_attention_mask=True).save_pretrained(tmp_path / "model")
    before = weights(tmp_path / "model")
    done = train(tmp_path / "model", recordings, tmp_path / "out", max_steps=2)
    after = weights(done.output_dir)
    still = [name for name in before if torch.equal(before[name], after[name]) and "num_batches" not in name]
    # A Conformer has relative positions, and never uses the convolution that it inherits for them.
    assert [name for name in still if "pos_conv_embed" not in name] == [], "every weight has learned"


def test_it_learns(tmp_path: Path) -> None:
    # Two tones that alternate: what is hidden can be told from what is around it.
    for number in range(6):
        tones = np.tile(np.repeat([220.0, 1760.0], RATE // 5), 3)
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(np.roll(tones, 500 * number)) / RATE)
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE)
    torch.manual_seed(0)
    start = saved(tmp_path / "model", config_of("layer", hidden_size=32, conv_dim=[32] * 7))
    how = {**_data(SMALL), "mask_time_length": 5, "mask_time_prob": 0.4}
    values = {**how, "max_steps": 120, "learning_rate": 5e-3, "warmup_steps": 0.1}
    done = train(start, tmp_path / "*.wav", tmp_path / "out", **values)
    first, last = (
        lmtasks.evaluate(model, validation_file=[str(tmp_path / "*.wav")], **how) for model in (start, done.output_dir)
    )
    assert first["accuracy"] < 0.3 and last["accuracy"] > 0.5
    assert last["eval_loss"] < first["eval_loss"] - 0.8
    assert last["codebook_perplexity"] > 8, "and not by using one code for everything"


def _data(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("min_seconds", "max_seconds", "num_negatives")}


# --- the promises ---


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice of codes without its noise, which is drawn for a batch as a whole."""

    def plain(logits: torch.Tensor, tau: float, hard: bool) -> torch.Tensor:
        soft = (logits / tau).softmax(-1)
        best = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1])
        return best - soft.detach() + soft

    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", plain)


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_accumulation_changes_nothing(kind: str, quiet: None, recordings: Path, tmp_path: Path) -> None:
    transformers.AutoModelForPreTraining.from_config(config_of(kind)).save_pretrained(tmp_path / "model")
    extractor().save_pretrained(tmp_path / "model")
    values = {
        "optim": "sgd",
        "learning_rate": 0.01,
        "max_grad_norm": 0,
        "max_steps": 2,
        "lr_scheduler_type": "constant",
    }
    trained = {}
    for size, parts in ((4, 1), (2, 2), (1, 4)):
        how = {**values, "per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        trained[size] = weights(train(tmp_path / "model", recordings, tmp_path / f"out-{size}", **how).output_dir)
    start = weights(tmp_path / "model")
    for name, whole in trained[4].items():
        moved = float((whole - start[name]).abs().max())
        for size in (2, 1):
            assert torch.allclose(trained[size][name], whole, rtol=1e-3, atol=1e-3 * moved + 1e-7), name


class Stopped(Exception):  # noqa: N818
    pass


def test_a_resumed_run_ends_in_the_same_bits(model_folder: Path, recordings: Path, tmp_path: Path) -> None:
    # With dropout, layer drop, Gumbel noise and a temperature that falls quickly; stopped in the second epoch.
    values = {"max_steps": 6, "save_steps": 3, "gumbel_temperature_decay": 0.8}
    whole = train(model_folder, recordings, tmp_path / "whole", **values)

    def stop(model: Any, options: Any, steps: int) -> None:
        if steps == 4:
            raise Stopped
        MASKED_SPEECH.before_step(model, options, steps)

    with pytest.raises(Stopped):
        train(
            model_folder,
            recordings,
            tmp_path / "parted",
            dataclasses.replace(MASKED_SPEECH, before_step=stop),
            **values,
        )
    parted = train(model_folder, recordings, tmp_path / "parted", resume_from_checkpoint=True, **values)
    one, other = weights(whole.output_dir), weights(parted.output_dir)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert parted.metrics["eval_loss"] == whole.metrics["eval_loss"]
    other_pace = train(model_folder, recordings, tmp_path / "pace", **{**values, "gumbel_temperature_decay": 0.5})
    assert any(not torch.equal(one[name], weight) for name, weight in weights(other_pace.output_dir).items())


def test_two_runs_are_the_same_and_another_seed_is_another(
    model_folder: Path, recordings: Path, tmp_path: Path
) -> None:
    first, second, third = (
        weights(train(model_folder, recordings, tmp_path / str(number), seed=seed).output_dir)
        for number, seed in enumerate((1, 1, 2))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_a_model_that_is_saved_other_than_it_was_trained_is_noticed(
    model_folder: Path, recordings: Path, tmp_path: Path
) -> None:
    values = {"model": str(model_folder), "train_file": [str(recordings)], "output_dir": str(tmp_path), **SMALL}
    prepared = prepare(configure(MASKED_SPEECH, values))
    save_into(tmp_path, prepared.model, prepared.processor)
    verify(prepared.model, prepared)
    with torch.no_grad():
        prepared.model.project_q.weight.add_(0.01)
    with pytest.raises(RunError, match="is not the one that was trained"):
        verify(prepared.model, prepared)


# --- what goes in ---


def plan(data: Path | str, model: Path, **values: Any) -> Any:
    return train(model, Path(data), Path("nowhere"), **{"dry_run": True, **values})


def test_the_plan_counts_what_is_cut_left_out_and_resampled(model_folder: Path, tmp_path: Path) -> None:
    for name, seconds, rate in [
        ("a", 3.0, RATE),
        ("b", 1.0, 8000),
        ("c", 0.3, RATE),
        ("d", 1.1, 44_100),
        ("e", 1.2, RATE),
    ]:
        soundfile.write(tmp_path / f"{name}.wav", chirp(seconds, rate=rate), rate)
    (tmp_path / "notes.txt").write_text("not a sound")
    (tmp_path / "held").mkdir()
    soundfile.write(tmp_path / "held" / "f.flac", chirp(0.9), RATE)
    found = plan(tmp_path / "*.wav", model_folder, validation_file=[str(tmp_path / "held")], test_size=None)
    counts = {name: found.train[name] for name in ("rows", "seconds", "pieces", "too_short")}
    assert counts == {"rows": 5, "seconds": 6.3, "pieces": 6, "too_short": 1}
    assert "  train    5 recordings, 6.3 seconds, 6 pieces, 1 too short" in found.lines()
    assert "2 of 5 training recordings are resampled to 16,000 Hz" in found.notes
    assert "1 training recordings, or pieces of them, are too short and left out" in found.notes


def test_datasets_with_an_audio_column(model_folder: Path, recordings: Path, tmp_path: Path) -> None:
    audio = datasets.Audio(decode=False)
    cells = [{"path": path.name, "bytes": path.read_bytes()} for path in sorted(recordings.iterdir())]
    rows = datasets.Dataset.from_dict({"speech": cells, "text": ["a"] * 10}).cast_column("speech", audio)
    rows.save_to_disk(str(tmp_path / "saved"))
    files = plan(recordings, model_folder)
    for values in (
        {"dataset": str(tmp_path / "saved")},
        {"dataset": str(tmp_path / "saved"), "column": "speech"},
        {"train_dataset": rows},
        # As load_dataset would give it: to be decoded by whoever looks at a cell.
        {"train_dataset": rows.cast_column("speech", datasets.Audio())},
        {"train_dataset": [str(path) for path in sorted(recordings.iterdir())]},
    ):
        found = plan(recordings, model_folder, train_file=None, **values)
        assert found.train["fingerprint"] == files.train["fingerprint"]
    with pytest.raises(InputError, match=r"datasets does not take the files in .* for audio") as caught:
        plan(recordings, model_folder, train_file=None, dataset=str(recordings))
    assert caught.value.hint == f"--train_file {recordings}"


def test_recordings_in_both_splits_are_counted(model_folder: Path, recordings: Path, tmp_path: Path) -> None:
    for name in ("1.wav", "2.wav"):
        shutil.copy(recordings / name, tmp_path / f"copy-of-{name}")
    found = plan(recordings, model_folder, validation_file=[str(tmp_path)], test_size=None)
    assert found.evaluation["duplicates"] == 2
    assert "2 of 2 held-out recordings are in the training audio, too" in found.notes


def test_other_data_than_the_run_held_out_is_noticed(run: Any, recordings: Path, tmp_path: Path) -> None:
    shutil.copytree(run.output_dir, tmp_path / "out")
    record = unsealed(json.loads((tmp_path / "out" / "run.json").read_text()))
    shutil.copytree(recordings, tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        path.write_bytes(path.read_bytes() + b"\0\0")
    record["settings"]["train_file"] = [str(tmp_path / "other")]
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"the audio that the run in .* held out is no longer there as it was"):
        lmtasks.evaluate(tmp_path / "out")


def broken(folder: Path, kind: str) -> list[str]:
    """Words of a command whose data is of this kind."""
    good = [chirp(0.8, number) for number in range(3)]
    for number, wave in enumerate(good):
        soundfile.write(folder / f"good{number}.wav", wave, RATE)
    file = folder / "bad.wav"
    if kind == "empty":
        file.touch()
        return ["--train_file", str(file)]
    if kind == "no folder":
        return ["--train_file", str(folder / "nowhere")]
    if kind == "no sounds":
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_text("a")
        return ["--train_file", str(folder / "texts")]
    if kind == "text":
        file.write_text("RIFF of nothing")
    if kind == "cut":
        soundfile.write(folder / "bad.flac", good[0], RATE)
        (folder / "bad.flac").write_bytes((folder / "bad.flac").read_bytes()[:3000])
    if kind == "silent":
        for path in folder.glob("good*"):
            soundfile.write(path, np.zeros(0, np.float32), RATE)
    if kind == "short":
        return ["--train_file", str(folder), "--min_seconds", "0.9", "--max_seconds", "9"]
    if kind == "one":
        return ["--train_file", str(folder / "good0.wav")]
    return ["--train_file", str(folder)]


BROKEN = {
    "empty": r"bad\.wav is empty",
    "no folder": "no such file",
    "no sounds": "no data files in the folder .*texts",
    "text": r"bad\.wav cannot be read as sound",
    "cut": r"bad\.flac",
    "silent": "holds no sound in 3 recordings",
    "short": r"all recordings of the training audio are shorter than 0\.9 seconds",
    "one": "only 1 document with audio",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_data_that_cannot_be_learned_from_is_an_error_before_anything_is_written(
    kind: str, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "data"
    place.mkdir()
    words = ["run", "masked-speech", "--model", str(model_folder), "--output_dir", str(tmp_path / "out")]
    assert main([*words, *broken(place, kind)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(errors) == 2 and re.search(BROKEN[kind], errors[0]), errors
    assert not (tmp_path / "out").exists()


def test_an_empty_recording_among_others_is_left_out(model_folder: Path, tmp_path: Path) -> None:
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", chirp(0.8, number), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(0, np.float32), RATE)
    found = plan(tmp_path, model_folder)
    assert found.train["rows"] + found.evaluation["rows"] == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_seconds": 1.0}, "--min_seconds 1 is more than half of --max_seconds 1.2"),
        ({"min_gumbel_temperature": 3.0}, "--min_gumbel_temperature is above --max_gumbel_temperature"),
        ({"train_tokenizer": 500}, "masked-speech has no tokenizer to train"),
        ({"sample_by": "document"}, "--sample_by is about text, and this is about audio"),
        ({"label_smoothing_factor": 0.1}, "masked-speech takes no notice of --label_smoothing_factor"),
        ({"train_file": None, "train_dataset": [1, 2]}, "row 1 of train_dataset is no name of a file but int"),
        ({"train_file": None}, "no data given"),
        ({"mask_time_length": 80}, "all recordings of the training audio are shorter than 1.60"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    values: dict[str, Any], message: str, model_folder: Path, recordings: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        plan(recordings, model_folder, **values)


# --- which models ---


def saved(folder: Path, config: Any, model_class: Any = transformers.AutoModelForPreTraining) -> Path:
    model_class.from_config(config).save_pretrained(folder)
    extractor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apply_spec_augment": False}, "apply_spec_augment false"),
        ({"mask_time_prob": 0.0}, "no vector for what is hidden"),
        ({"add_adapter": True}, "has an adapter behind its encoder"),
    ],
)
def test_models_that_hide_nothing_are_refused(
    change: dict[str, Any], message: str, recordings: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        plan(recordings, saved(tmp_path, config_of("group", **change)))


def test_a_text_recipe_refuses_a_speech_model_and_names_this_one(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("a text")
    assert main(["run", "masked-lm", "--model", str(model_folder), "--train_file", str(tmp_path / "a.txt")]) == 2
    told = capsys.readouterr().err
    assert "masked-lm cannot train" in told and "wav2vec2 has no such model class" in told
    assert "hint: lmtasks run masked-speech takes it" in told


def test_this_recipe_refuses_what_the_auto_class_has_besides(recordings: Path, tmp_path: Path) -> None:
    tiny = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 50,
    }
    transformers.BertConfig(**tiny).save_pretrained(tmp_path / "bert")
    transformers.UniSpeechConfig().save_pretrained(tmp_path / "unispeech")
    for name, hint in (("bert", "masked-lm takes it"), ("unispeech", "it is a model of audio")):
        with pytest.raises(InputError, match=f"{name} has no such model class") as caught:
            plan(recordings, tmp_path / name)
        assert hint in caught.value.hint or (name == "bert" and "lm takes it" in caught.value.hint)


def test_a_model_that_is_no_run_finds_its_recipe(model_folder: Path, recordings: Path) -> None:
    figures = lmtasks.evaluate(model_folder, validation_file=[str(recordings)], **_data(SMALL))
    assert figures["eval_targets"] > 100
    answer = lmtasks.predict(model_folder, str(recordings / "1.wav"))
    assert answer["seconds"] == 0.71
    with pytest.raises(InputError, match=r"no\.wav cannot be read as sound"):
        lmtasks.predict(model_folder, "no.wav")
    with pytest.raises(InputError, match="takes no 'top_k'"):
        lmtasks.predict(model_folder, str(recordings / "1.wav"), top_k=3)


def test_sounds_that_are_too_short_or_empty_have_no_codes(model_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", chirp(0.1), RATE)
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(InputError, match=r"short\.wav is too short: 0\.1 seconds"):
        lmtasks.predict(model_folder, str(tmp_path / "short.wav"))
    with pytest.raises(InputError, match=r"none\.wav holds no sound"):
        lmtasks.predict(model_folder, str(tmp_path / "none.wav"))


def test_another_kind_of_processing_class_is_refused(model_folder: Path, recordings: Path, tmp_path: Path) -> None:
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="needs waves, and WhisperFeatureExtractor makes something else"):
        plan(recordings, model_folder, processor_name=str(tmp_path))


# --- the package ---


def test_the_readme_has_every_option() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    rows = dict(re.findall(r"^\| (`--[^|]+) \| ([^|]+) \|", text, re.MULTILINE))
    options = options_of(MaskedSpeechOptions)
    assert {names.split("`")[1].removeprefix("--") for names in rows} == set(options)
    for names, default in rows.items():
        option = options[names.split("`")[1].removeprefix("--")]
        assert default == ("–" if option.default is None else f"{option.default:.6g}")
        assert all(f"`--{alias}`" in names for alias in option.aliases)


def test_declaring_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'soundfile', 'datasets', 'transformers', 'evaluate'}"
    code = f"import sys, lmtasks_masked_speech as m; m.lmtasks_recipes(); sys.exit(str({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stderr.strip() == "set()"
