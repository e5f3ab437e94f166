"""Weights in few bits under an adapter, and the way in which attention is computed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from safetensors.torch import load_file, save_file

from lmtasks import InputError, Run, evaluate, run
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.settings import AdapterSettings, ModelSettings
from lmtasks.models.checkpoint import LoadedModel, from_pretrained, load_model
from lmtasks.models.numbers import is_quantised, size_of
from lmtasks.models.weight_files import saved_kinds


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_file: Path) -> None:
    monkeypatch.chdir(tmp_path)
    os.symlink(text_file, "text.txt")


def loaded(model: Path, seed: int = 0, **settings: Any) -> LoadedModel:
    """llama with an adapter that does something from the beginning."""
    Path("adapter.yaml").write_text("peft_type: LORA\ntarget_modules: all-linear\ninit_lora_weights: false\nr: 4\n")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    config = transformers.AutoConfig.from_pretrained(model)
    adapter = AdapterSettings(peft_config="adapter.yaml")
    asked = ModelSettings(model_name_or_path=str(model), **settings)
    return load_model(asked, CAUSAL_LM, config, tokenizer, seed, adapter=adapter)


def gradient(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """That of the adapter."""
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    return torch.cat([one.grad.flatten() for one in model.parameters() if one.requires_grad])


def test_gradients_go_through_four_bits_also_after_an_evaluation(model_folders: dict[str, Path]) -> None:
    few = loaded(model_folders["llama"], load_in_4bit=True).model
    whole = loaded(model_folders["llama"]).model
    layers = {name: one for name, one in few.named_modules() if isinstance(one, Linear4bit)}
    assert len(layers) == 7 * few.config.num_hidden_layers
    with torch.no_grad():
        for name, one in layers.items():
            whole.get_submodule(name).weight.copy_(dequantize_4bit(one.weight.data, one.weight.quant_state))
    ids = torch.arange(64).reshape(2, 32)
    with torch.no_grad():
        few.eval()(ids)  # here bitsandbytes would turn its weights over
    ours, right = gradient(few.train(), ids), gradient(whole.train(), ids)
    assert torch.linalg.norm(right) > 0
    torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-6)


def test_eight_bits(model_folders: dict[str, Path]) -> None:
    few, whole = loaded(model_folders["llama"], load_in_8bit=True).model, loaded(model_folders["llama"]).model
    assert sum(isinstance(one, Linear8bitLt) for one in few.modules()) == 7 * few.config.num_hidden_layers
    ids = torch.arange(64).reshape(2, 32)
    ours, right = gradient(few, ids), gradient(whole, ids)
    assert torch.linalg.norm(ours - right) < 0.1 * torch.linalg.norm(right)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_run_on_few_bits(bits: int, model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    flags = {"use_peft": True, f"load_in_{bits}bit": True, "train_file": "text.txt", "block_size": 16}
    steps = {"max_steps": 4, "save_steps": 2, "max_eval_samples": 8, "learning_rate": 1e-2}
    done = run("causal-lm", model=str(model_folders["llama"]), output_dir="out", **flags, **steps)
    assert isinstance(done, Run)
    record = json.loads(Path("out/run.json").read_text())
    assert record["settings"][f"load_in_{bits}bit"] is True
    assert not Path("out/model.safetensors").exists()
    assert evaluate("out")["eval_loss"] == pytest.approx(done.metrics["eval_loss"], rel=1e-6), "in the same numbers"

    flags |= {"output_dir": "again", "lr_scheduler_type": "constant"}
    run("causal-lm", model=str(model_folders["llama"]), **{**flags, "output_dir": "whole"}, **steps)
    run("causal-lm", model=str(model_folders["llama"]), **flags, **{**steps, "max_steps": 2})
    run("causal-lm", model=str(model_folders["llama"]), **flags, **steps, resume_from_checkpoint=True)
    resumed, straight = (load_file(f"{name}/adapter_model.safetensors") for name in ("again", "whole"))
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)

    assert lmtasks("predict", "out", "the").code == 0
    assert lmtasks("merge", "out", "merged").code == 0
    merged = transformers.AutoModelForCausalLM.from_pretrained("merged")
    assert not is_quantised(merged)
    assert all(torch.is_floating_point(one) for one in merged.parameters()), "merged into the whole numbers of its base"


@pytest.mark.parametrize(
    ("flags", "told", "hint"),
    [
        ("--load_in_8bit --load_in_4bit", "--load_in_8bit and --load_in_4bit exclude each other", "one of the two"),
        ("--load_in_8bit", "--load_in_8bit: such weights do not learn", "add --use_peft"),
        ("--load_in_4bit", "--load_in_4bit: such weights do not learn", "add --use_peft"),
        ("--use_liger_kernel", "--use_liger_kernel needs a GPU", "leave --use_liger_kernel out"),
        ("--attn_implementation flash", "--attn_implementation cannot be 'flash'", ""),
    ],
)
def test_what_does_not_go_together(
    flags: str, told: str, hint: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    words = ["--train_file", "text.txt", "--block_size", "16", "--max_steps", "1", "--output_dir", "out"]
    done = lmtasks("run", "causal-lm", "--model", model_folders["llama"], *words, *flags.split())
    assert done.code == 2
    assert f"error: {told}" in done.err and hint in done.err.splitlines()[-1]
    assert not Path("out").exists()


def test_a_new_model_has_whole_numbers(lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("run", "causal-lm", "--model_type", "gpt2", "--train_tokenizer", 300, "--load_in_4bit")
    assert (done.code, "--load_in_4bit is for checkpoints" in done.err) == (2, True)


def test_without_bitsandbytes(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match="--load_in_4bit needs the package bitsandbytes") as found:
        loaded(model_folders["llama"], load_in_4bit=True)
    assert found.value.hint.startswith("pip install lmtasks[quantised]")


def test_it_says_nothing_of_its_casts(model_folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="root"):
        gradient(loaded(model_folders["llama"], load_in_8bit=True).model, torch.arange(32)[None])
    assert [one for one in caplog.messages if "cast" in one] == []


def test_sizes() -> None:
    config = transformers.GPT2Config()
    assert size_of(ModelSettings(load_in_8bit=True), config) == 1
    assert size_of(ModelSettings(load_in_4bit=True), config) == 0.5625


@pytest.mark.parametrize("way", ["eager", "sdpa"])
def test_attention_is_computed_as_asked(way: str, model_folders: dict[str, Path]) -> None:
    model = loaded(model_folders["llama"], attn_implementation=way).model
    assert model.config._attn_implementation == way


def test_a_new_model_computes_attention_as_asked(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    shape = "num_hidden_layers=1,hidden_size=16,intermediate_size=16,num_attention_heads=2,num_key_value_heads=2"
    words = ["--config_overrides", shape, "--train_tokenizer", 300, "--train_file", "text.txt", "--max_steps", 1]
    figures = []
    for way in ("eager", "sdpa"):
        flags = ["--attn_implementation", way, "--output_dir", way, "--json"]
        done = lmtasks("run", "causal-lm", "--model_type", "llama", *words, *flags)
        assert done.code == 0, done.err
        figures.append(json.loads(done.out)["metrics"]["eval_loss"])
        assert json.loads(Path(f"{way}/run.json").read_text())["settings"]["attn_implementation"] == way
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_attention_that_a_model_does_not_have(lmtasks: Callable[..., Any]) -> None:
    words = ["--train_tokenizer", 300, "--train_file", "text.txt", "--attn_implementation", "sdpa", "--dry_run"]
    done = lmtasks("run", "causal-lm", "--model_type", "bloom", *words)
    assert done.code == 2
    told, hint = done.err.splitlines()[-2:]
    assert told.startswith("error: --attn_implementation sdpa: BloomForCausalLM does not support")
    assert hint == "hint: leave it out, or give the other one"


def requantised(folder: Path, kind: torch.dtype, *, shard: str = "5GB") -> str:
    """The first weight of a layer becomes numbers of this kind; its name."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder, max_shard_size=shard)
    name = "model.layers.0.mlp.up_proj.weight"
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        if name in weights:
            weights[name] = (100 * weights[name]).to(kind)
            save_file(weights, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("shard", ["5GB", "50KB"])
@pytest.mark.parametrize(
    ("kind", "told"), [(torch.int8, "I8"), (torch.uint8, "U8"), (torch.float8_e4m3fn, "F8_E4M3"), (torch.int32, "I32")]
)
def test_quantised_weights_whose_scales_nobody_knows_are_refused(
    kind: torch.dtype, told: str, shard: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    """transformers would take what is written there for the weights themselves."""
    folder = Path(shutil.copytree(model_folders["llama"], "few"))
    name = requantised(folder, kind, shard=shard)
    assert (len([*folder.glob("*.safetensors")]) > 1) == (shard == "50KB")
    message = f"error: {name} in 'few' is quantised ({told}), and its config.json does not say how"
    answer = lmtasks("predict", "few", "a")
    assert answer.code == 2 and message in answer.err and "quantization_config" in answer.err
    answer = lmtasks(
        "run", "causal-lm", "--model_name_or_path", "few", "--train_file", "text.txt", "--output_dir", "out"
    )
    assert answer.code == 2 and message in answer.err
    assert not Path("out").exists()


@pytest.fixture
def from_hub(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the cache of the Hub has the model somebody/few."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    held = tmp_path / "models--somebody--few"
    shutil.copytree(model_folders["llama"], held / "snapshots/abc")
    (held / "refs").mkdir()
    (held / "refs/main").write_text("abc")
    return held / "snapshots/abc"


def test_they_are_refused_of_a_model_from_the_hub(from_hub: Path) -> None:
    llama = "transformers:AutoModelForCausalLM"
    assert from_pretrained(llama, "somebody/few").dtype == torch.float32
    requantised(from_hub, torch.int8)
    with pytest.raises(InputError, match=r"up_proj.weight in 'somebody/few' is quantised \(I8\)"):
        from_pretrained(llama, "somebody/few")


def test_a_model_from_the_hub_names_no_pickle_as_its_weights(from_hub: Path) -> None:
    """transformers would read it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(from_hub)
    torch.save(model.state_dict(), from_hub / "adapter_model.bin")
    config = json.loads((from_hub / "config.json").read_text())
    (from_hub / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    assert transformers.AutoModelForCausalLM.from_pretrained("somebody/few", use_safetensors=True)
    with pytest.raises(InputError, match=r"config.json' names 'adapter_model.bin', which is no file of weights"):
        from_pretrained("transformers:AutoModelForCausalLM", "somebody/few")


def test_of_weights_that_lie_elsewhere_nothing_is_known(from_hub: Path) -> None:
    assert set(saved_kinds(from_hub).values()) == {"F32"}
    (from_hub / "model.safetensors").unlink()
    assert saved_kinds(from_hub) == {}


@pytest.mark.parametrize("shard", ["5GB", "50KB"])
def test_they_are_refused_in_files_of_other_names(
    shard: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    folder, llama = Path(shutil.copytree(model_folders["llama"], "own")), "transformers:AutoModelForCausalLM"
    whole = from_pretrained(llama, str(folder))
    name = requantised(folder, torch.float32, shard=shard)
    config = json.loads((folder / "config.json").read_text())
    given = "model.safetensors" if shard == "5GB" else "model.safetensors.index.json"
    own = given.replace("model", "own")
    (folder / given).rename(folder / own)
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": own}))
    assert torch.allclose(from_pretrained(llama, "own").get_parameter(name), 100 * whole.get_parameter(name))
    file = next(one for one in folder.glob("*.safetensors") if name in load_file(one))
    weights = load_file(file)
    save_file({**weights, name: weights[name].to(torch.int8)}, file, metadata={"format": "pt"})
    assert f"error: {name} in 'own' is quantised (I8)" in lmtasks("predict", "own", "a").err


def test_integers_that_are_no_weights_are_no_trouble(model_folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(model_folders["gpt2"], "old"))
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    plain = from_pretrained("transformers:AutoModelForCausalLM", str(model_folders["gpt2"]))
    old = from_pretrained("transformers:AutoModelForCausalLM", "old")
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), old.parameters(), strict=True))


def test_what_bitsandbytes_has_quantised_is_read_and_what_is_only_said_to_be_is_not(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    how = transformers.BitsAndBytesConfig(load_in_8bit=True)
    transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"], quantization_config=how).save_pretrained(
        "eight"
    )
    again = from_pretrained("transformers:AutoModelForCausalLM", "eight")
    assert is_quantised(again)
    folder = Path(shutil.copytree(model_folders["llama"], "said"))
    config = json.loads((folder / "config.json").read_text())
    said = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    (folder / "config.json").write_text(json.dumps(config | said))
    answer = lmtasks("predict", "said", "a")
    assert answer.code == 2
    assert (
        "the config.json of 'said' says that bitsandbytes has quantised it, and its weights are not quantised"
        in answer.err
    )
    assert "take quantization_config out of it" in answer.err
