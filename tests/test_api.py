"""lmtasks from Python: the public names, runs of recipes and of their variants, architectures of plugins."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import PretrainedConfig

import lmtasks as api
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.runs.plan import Plan

SMALL: dict[str, Any] = {"block_size": 16, "max_steps": 2}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- names ---


def test_every_public_name_can_be_imported_and_says_what_it_is() -> None:
    assert len(set(api.__all__)) == len(api.__all__)
    for name in api.__all__:
        thing = getattr(api, name)
        assert (inspect.getdoc(thing) or "").strip(), name


def test_import_star_gives_the_public_names() -> None:
    names: dict[str, Any] = {}
    exec("from lmtasks import *", names)
    assert names.keys() - {"__builtins__"} == set(api.__all__)


def test_public_functions_have_types() -> None:
    for name in ("run", "evaluate", "predict", "push", "recipes", "register_architectures"):
        signature = inspect.signature(getattr(api, name))
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lmtasks' has no attribute 'trian'"):
        _ = api.trian  # type: ignore[attr-defined]


def test_recipes_are_those_that_list_shows(lmtasks: Any) -> None:
    listed = [line.split()[0] for line in lmtasks("list").out.splitlines()]
    assert list(api.recipes()) == listed
    assert api.recipes()["masked-lm"] is MASKED_LM


def test_changing_the_recipes_that_one_got_changes_nothing() -> None:
    api.recipes().clear()
    assert "masked-lm" in api.recipes()


def test_errors_are_of_one_family_and_know_their_exit_codes() -> None:
    assert issubclass(api.InputError, api.LmtasksError)
    codes = {api.InputError("a"): 2, api.RunError("a"): 3, api.Interrupted("a", "b", signal.SIGTERM): 143}
    for error, code in codes.items():
        assert error.exit_code == code
        assert str(error).startswith("a")


# --- runs ---


def test_a_dry_run_gives_the_plan_and_writes_nothing(model_folders: dict[str, Path], documents: list[str]) -> None:
    plan = api.run("masked-lm", model=model_folders["bert"], train_dataset=documents, dry_run=True, **SMALL)
    assert isinstance(plan, Plan)
    assert (plan.steps, plan.block_size, plan.batch) == (2, 16, 8)
    assert plan.train["rows"] + plan.evaluation["rows"] == len(documents)
    assert list(Path().iterdir()) == []


def test_a_run_predicts_what_predict_of_its_folder_does(model_folders: dict[str, Path], documents: list[str]) -> None:
    result = api.run("causal-lm", model=model_folders["gpt2"], train_dataset=documents, output_dir="out", **SMALL)
    assert isinstance(result, api.Run)
    assert result.output_dir == Path("out")
    more = {"max_new_tokens": 3, "do_sample": False}
    one = result.predict("Return a", **more)
    assert one == api.predict("out", "Return a", **more)
    assert one[0]["generated_text"].startswith("Return a")
    assert result.predict(["Return a"], **more) == [one]
    texts = ["Return a", "A longer text before", "x"]
    assert [answer[0]["generated_text"] for answer in result.predict(texts, **more)] == [
        result.predict(text, **more)[0]["generated_text"] for text in texts
    ], "a batch answers as each text alone"


def test_predict_takes_a_model_that_is_no_run_and_finds_its_recipe(model_folders: dict[str, Path]) -> None:
    answers = api.predict(model_folders["roberta"], "a [MASK] b", top_k=2)
    assert [set(answer) for answer in answers] == [{"score", "token", "token_str", "sequence"}] * 2
    with pytest.raises(api.InputError, match="takes no 'topk', did you mean 'top_k'"):
        api.predict(model_folders["roberta"], "a [MASK] b", topk=2)


def test_values_may_be_paths_numbers_or_text(model_folders: dict[str, Path], text_file: Path) -> None:
    plans = [
        api.run("causal-lm", model=model, train_file=files, learning_rate=rate, dry_run=True, **SMALL)
        for model, files, rate in (
            (model_folders["gpt2"], text_file, 1e-3),
            (str(model_folders["gpt2"]), [str(text_file)], "1e-3"),
        )
    ]
    assert plans[0] == plans[1]


def test_keywords_win_over_the_yaml_file(model_folders: dict[str, Path], documents: list[str]) -> None:
    Path("run.yaml").write_text("learning_rate: 1e-4\nseed: 7\nmax-seq-length: 32\n")
    values = {"model": model_folders["gpt2"], "train_dataset": documents, "dry_run": True, "max_steps": 1}
    plan = api.run("causal-lm", config="run.yaml", block_size=16, **values)
    assert isinstance(plan, Plan)
    assert (plan.block_size, plan.learning_rate) == (16, 1e-4)


def test_bad_input_raises_and_does_not_exit(model_folders: dict[str, Path]) -> None:
    with pytest.raises(api.InputError, match="did you mean 'masked-lm'"):
        api.run("masked-ml")
    with pytest.raises(api.InputError, match="train_dataset cannot be a str"):
        api.run("masked-lm", model=model_folders["bert"], train_dataset="a text")
    with pytest.raises(api.InputError, match="row 2 of train_dataset is not text but NoneType"):
        api.run("masked-lm", model=model_folders["bert"], train_dataset=["a", None])


# --- recipes of one's own ---


@dataclass(frozen=True, kw_only=True)
class ShoutingOptions(CausalLMOptions):
    """Options of a variant."""

    every: int = api.option(2, help="one of so many tokens counts", ge=1)


def test_a_variant_of_a_recipe_runs_without_being_installed(
    model_folders: dict[str, Path], documents: list[str]
) -> None:
    def collator(tokenizer: Any, options: ShoutingOptions, training: bool) -> Any:
        whole = CAUSAL_LM.collator(tokenizer, options, training)

        def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
            batch = whole(examples)
            batch["labels"][:, 1 :: options.every] = -100
            return batch

        return collate

    variant = replace(CAUSAL_LM, name="every-other", options=ShoutingOptions, collator=collator)
    values = {**SMALL, "model": model_folders["gpt2"], "train_dataset": documents, "max_eval_samples": 5}
    result = api.run(variant, **values, every=3)
    assert isinstance(result, api.Run)
    assert result.output_dir == Path("runs/every-other")
    # Of the tokens 1 to 15 of each block those at 1, 4, 7, 10 and 13 are left out.
    assert result.metrics["eval_targets"] == 5 * 10
    assert result.predict("Return", max_new_tokens=2)
    with pytest.raises(api.InputError, match="--every cannot be 0"):
        api.run(variant, **values, every=0)


def test_a_recipe_of_the_same_name_is_run_as_given(model_folders: dict[str, Path], documents: list[str]) -> None:
    quiet = replace(CAUSAL_LM, metrics=("lmtasks.metrics:Perplexity",))
    result = api.run(quiet, model=model_folders["gpt2"], train_dataset=documents, output_dir="out", **SMALL)
    assert isinstance(result, api.Run)
    assert "accuracy" not in result.metrics
    assert '"owner": "unknown"' in Path("out/run.json").read_text()


def test_an_interrupted_run_raises_and_goes_on_where_it_was(
    model_folders: dict[str, Path], documents: list[str]
) -> None:
    calls = iter(range(1000))

    def interrupting_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        # The first calls are those of the checks before training.
        if model.training and torch.is_grad_enabled() and next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return MASKED_LM.loss(model, batch)

    values = {"model": model_folders["roberta"], "train_dataset": documents, "block_size": 16, "max_steps": 9}
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(api.Interrupted) as caught:
        api.run(replace(MASKED_LM, loss=interrupting_loss), **values, output_dir="out")
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is previous, "the caller has his own handler back"
    assert [path.name for path in Path("out/checkpoints").iterdir()] == ["checkpoint-4"]

    resumed = api.run("masked-lm", **values, output_dir="out", resume_from_checkpoint=True)
    whole = api.run("masked-lm", **values, output_dir="whole")
    assert isinstance(resumed, api.Run)
    assert isinstance(whole, api.Run)
    assert resumed.metrics["eval_loss"] == whole.metrics["eval_loss"]
    one, other = load_file("out/model.safetensors"), load_file("whole/model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in other)


# --- architectures ---


class RetroConfig(PretrainedConfig):
    """A model type that transformers does not know."""

    model_type = "retro-test"

    def __init__(self, width: int = 8, vocab_size: int = 400, **more: Any) -> None:
        self.width, self.vocab_size = width, vocab_size
        super().__init__(**more)


class RetroForCausalLM(transformers.PreTrainedModel):
    """Tells the next token from the last one alone."""

    config_class = RetroConfig
    base_model_prefix = "retro"

    def __init__(self, config: RetroConfig) -> None:
        super().__init__(config)
        self.table = torch.nn.Embedding(config.vocab_size, config.width)
        self.head = torch.nn.Linear(config.width, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table

    def forward(self, input_ids: torch.Tensor, **more: Any) -> Any:
        return transformers.modeling_outputs.CausalLMOutput(logits=self.head(self.table(input_ids)))


RETRO = api.Architecture(
    model_type="retro-test",
    config=f"{__name__}:RetroConfig",
    models={"AutoModelForCausalLM": f"{__name__}:RetroForCausalLM"},
)


@pytest.fixture
def retro() -> None:
    """The architecture, known to transformers as a plugin's would be."""
    assert sys.modules[__name__].RetroConfig is RetroConfig, "the string names this module"
    nothing: Any = MappingProxyType({})
    api.register_architectures(api.Catalog(nothing, {"retro-test": RETRO}, ()))


def test_a_declared_architecture_is_known_to_the_auto_classes(retro: None) -> None:
    config = transformers.AutoConfig.for_model("retro-test", width=16)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert isinstance(model, RetroForCausalLM)
    model.save_pretrained("model")
    assert isinstance(transformers.AutoModelForCausalLM.from_pretrained("model"), RetroForCausalLM)


def test_a_declared_architecture_can_be_trained_by_its_name(
    retro: None, documents: list[str], model_folders: dict[str, Path]
) -> None:
    values = {"model_type": "retro-test", "config_overrides": "width=12", "tokenizer_name": model_folders["gpt2"]}
    result = api.run("causal-lm", **values, train_dataset=documents, output_dir="out", **SMALL)
    assert isinstance(result, api.Run)
    assert load_file("out/model.safetensors")["table.weight"].shape == (400, 12)
    with pytest.raises(api.InputError, match="retro-test has no such model class"):
        api.run("masked-lm", **{**values, "tokenizer_name": model_folders["bert"]}, train_dataset=documents, **SMALL)


def test_registering_twice_is_no_error(retro: None) -> None:
    nothing: Any = MappingProxyType({})
    api.register_architectures(api.Catalog(nothing, {"retro-test": RETRO}, ()))
    api.register_architectures()


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        (api.Architecture(model_type="retro-lost", config="no_such_package:Config"), "No module named"),
        (api.Architecture(model_type="bert", config="transformers:GPT2Config"), "already has this model type"),
        (api.Architecture(model_type="retro-bare", models={"AutoModel": "m:Model"}), "no such model type"),
    ],
)
def test_an_architecture_that_cannot_be_used_is_left_out_with_a_warning(
    architecture: api.Architecture, reason: str
) -> None:
    nothing: Any = MappingProxyType({})
    with pytest.warns(UserWarning, match=reason):
        api.register_architectures(api.Catalog(nothing, {architecture.model_type: architecture}, ()))


def test_facts_about_a_model_type_of_another_version_of_transformers_are_no_fault(
    recwarn: pytest.WarningsRecorder,
) -> None:
    nothing: Any = MappingProxyType({})
    api.register_architectures(api.Catalog(nothing, {"retro-bare": api.Architecture(model_type="retro-bare")}, ()))
    assert not recwarn.list
