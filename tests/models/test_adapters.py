"""Adapters against the library that makes them, and against models that do not fit."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lmtasks.api import Recipe, resolve
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.settings import AdapterSettings, ModelSettings
from lmtasks.errors import InputError
from lmtasks.models import adapters
from lmtasks.models.adapters import WEIGHTS, adapter_kind, base_of, has_adapter, merge_into, restore_adapter
from lmtasks.models.checkpoint import load_model, pretrained
from lmtasks.models.config import load_config, saved_config
from lmtasks.models.lm_head import separate_head, separated
from lmtasks.models.probes import embedded_forward
from lmtasks.models.tokenizer import load_tokenizer

# peft asks a model for an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

RECIPES = {"gpt2": CAUSAL_LM, "llama": CAUSAL_LM, "roberta": MASKED_LM, "modernbert": MASKED_LM}


def loaded(folder: Path, recipe: Recipe, **settings: Any) -> Any:
    chosen = ModelSettings(model_name_or_path=str(folder))
    tokenizer = load_tokenizer(str(folder), chosen, recipe)
    adapter = AdapterSettings(**{"use_peft": True, "lora_dropout": 0.0, **settings})
    return load_model(chosen, recipe, load_config(chosen, recipe), tokenizer, seed=1, adapter=adapter).model


def randomised(model: Any) -> Any:
    """With an adapter that does something: at first it adds nothing."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(10, 390, (3, 20), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.3, ids, -100)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("kind", RECIPES)
def test_loss_and_gradients_are_those_of_peft_and_torch(
    kind: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = RECIPES[kind]
    ours = randomised(loaded(model_folders[kind], recipe, lora_r=4)).eval()
    ours.save_pretrained(tmp_path)
    plain = resolve(recipe.model_class).from_pretrained(model_folders[kind])
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path, is_trainable=True).eval()
    given = batch()
    labels = given["labels"]
    logits = theirs(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits
    if recipe is CAUSAL_LM:
        logits, labels = logits[:, :-1], labels[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    expected.backward()

    assert separate_head(ours, {name: value[:1] for name, value in given.items() if name != "labels"}) is None
    assert separated(ours), "the head runs on targets only, with an adapter as without"
    total, count, *_ = recipe.loss(ours, given)
    total.backward()
    assert int(count) == int((labels != -100).sum())
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = {name: one.grad for name, one in theirs.named_parameters() if one.requires_grad}
    trained = {name: one.grad for name, one in ours.named_parameters() if one.requires_grad}
    assert len(trained) == len(gradients) >= 8
    wanted = {name: gradients[f"base_model.model.{name}"] for name in trained}
    apart = torch.stack([(gradient - wanted[name]).norm() for name, gradient in trained.items()]).norm()
    assert apart <= 1e-6 * torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    for name, gradient in trained.items():  # sums of float32 in another order
        assert (gradient - wanted[name]).norm() <= 1e-5 * wanted[name].norm(), name


def test_only_the_adapter_is_trained_and_it_adds_nothing_at_first(model_folders: dict[str, Path]) -> None:
    folder = model_folders["llama"]
    model = loaded(folder, CAUSAL_LM, lora_r=2).eval()
    assert has_adapter(model) and adapter_kind(model) == "LORA"
    assert {name.split(".")[-3] for name, one in model.named_parameters() if one.requires_grad} == {"lora_A", "lora_B"}
    ids = batch()["input_ids"]
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(model(ids).logits, plain(ids).logits)
    # Each of the 7 linear layers of both blocks, r times (inputs + outputs): q, k, v, o and gate, up, down.
    assert model.num_parameters(only_trainable=True) == 2 * 2 * (4 * (32 + 32) + 3 * (32 + 64))


def test_settings_reach_the_adapter(model_folders: dict[str, Path], tmp_path: Path) -> None:
    settings = {"lora_r": 3, "lora_alpha": 5, "use_rslora": True, "use_dora": True, "lora_dropout": 0.25}
    modules = {"lora_target_modules": ["q_proj", "v_proj"], "lora_modules_to_save": ["lm_head"]}
    model = loaded(model_folders["llama"], CAUSAL_LM, **settings, **modules)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 5, 0.25)
    assert config["use_rslora"] is config["use_dora"] is True
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"] and config["modules_to_save"] == ["lm_head"]
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == str(model_folders["llama"].resolve())
    saved = load_file(tmp_path / WEIGHTS)
    assert {name.split(".")[-2] for name in saved if "lora" in name} >= {"lora_A", "lora_B"}
    assert "base_model.model.lm_head.weight" in saved
    again, missing, unused = pretrained(transformers.AutoModelForCausalLM, str(tmp_path))
    assert (missing, unused) == ((), ())
    ids = batch()["input_ids"]
    assert torch.equal(again.eval()(ids).logits, model.eval()(ids).logits)


def test_peft_finds_the_class_of_a_model_that_its_tasks_have_no_name_for(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    model = randomised(loaded(model_folders["roberta"], MASKED_LM)).eval()
    model.save_pretrained(tmp_path)
    theirs = peft.AutoPeftModel.from_pretrained(tmp_path).eval()
    assert type(theirs.base_model.model) is transformers.RobertaForMaskedLM
    assert torch.equal(theirs(batch()["input_ids"]).logits, model(batch()["input_ids"]).logits)
    named = loaded(model_folders["roberta"], MASKED_LM, lora_task_type="TOKEN_CLS")
    assert named.peft_config["default"].task_type == "TOKEN_CLS"


@pytest.mark.parametrize(
    "text", ["peft_type: IA3\ntarget_modules: [v_proj, down_proj]\nfeedforward_modules: [down_proj]", '{"peft_type": "LOHA", "r": 2, "target_modules": ["q_proj"]}']  # noqa: E501
)  # fmt: skip
def test_any_adapter_within_the_model_can_be_asked_for(
    text: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(text)
    model = loaded(model_folders["llama"], CAUSAL_LM, use_peft=False, peft_config=str(tmp_path / "other.yaml"))
    assert adapter_kind(model) in text
    randomised(model).eval().save_pretrained(tmp_path / "saved")
    again, _, _ = pretrained(transformers.AutoModelForCausalLM, str(tmp_path / "saved"))
    ids = batch()["input_ids"]
    assert torch.equal(again.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "roberta"])
def test_a_merged_model_says_the_same_without_an_adapter(kind: str, model_folders: dict[str, Path]) -> None:
    model = randomised(loaded(model_folders[kind], RECIPES[kind], use_dora=True)).eval()
    ids = batch()["input_ids"]
    expected = model(ids).logits
    classes = {type(module) for module in merge_into(model).modules()}
    assert not has_adapter(model) and not [one for one in classes if one.__module__.startswith("peft")]
    assert torch.allclose(model(ids).logits, expected, rtol=1e-4, atol=1e-5)
    plain = resolve(RECIPES[kind].model_class).from_pretrained(model_folders[kind])
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not torch.allclose(plain.eval()(ids).logits, expected, atol=1e-2), "the adapter did something"


def test_the_embedded_tokens_have_gradients_though_they_are_frozen(model_folders: dict[str, Path]) -> None:
    model = loaded(model_folders["llama"], CAUSAL_LM).eval()
    logits, embedded = embedded_forward(model, {"input_ids": batch()["input_ids"][:1]})
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), embedded)
    assert gradient[:, :4].abs().sum() > 0 and gradient[:, 4:].abs().sum() == 0
    assert not model.get_input_embeddings().weight.requires_grad, "frozen again"


def test_what_is_no_adapter_has_no_base(model_folders: dict[str, Path], tmp_path: Path) -> None:
    assert base_of(str(model_folders["gpt2"])) is None
    assert base_of("nobody/nothing") is None, "offline, and not in the cache"
    assert base_of("./nowhere") is None
    assert base_of("no\nid") is None, "for others to refuse"
    whole = shutil.copytree(model_folders["gpt2"], tmp_path / "whole")
    (whole / "adapter_config.json").write_text("{}")
    assert base_of(str(whole)) is None, "a whole model, whatever lies beside it"


@pytest.fixture
def saved(model_folders: dict[str, Path], tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    loaded(model_folders["llama"], CAUSAL_LM, lora_r=2).save_pretrained(folder)
    return folder


def test_the_configuration_of_an_adapter_is_that_of_its_base(saved: Path) -> None:
    assert saved_config(str(saved)).model_type == "llama"
    base = base_of(str(saved))
    assert base is not None and base.revision == "main" and base.config["r"] == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is damaged"),
        ("[1]", "is no mapping"),
        ("{}", "does not say which model it is for"),
        ('{"base_model_name_or_path": "./gone"}', "is not there any more: './gone'"),
    ],
)
def test_a_damaged_adapter_is_refused(config: str, message: str, saved: Path) -> None:
    (saved / "adapter_config.json").write_text(config)
    with pytest.raises(InputError, match=message):
        base_of(str(saved))


def test_weights_that_do_not_fit_are_refused(saved: Path) -> None:
    model, _, _ = pretrained(transformers.AutoModelForCausalLM, str(saved))
    weights = load_file(saved / WEIGHTS)
    first = sorted(weights)[0]
    inner = first.removeprefix("base_model.model.")
    for changed, message in (
        ({name: value for name, value in weights.items() if name != first}, f"{inner} is missing"),
        ({**weights, "base_model.model.other": torch.zeros(1)}, "the model has no place for other"),
        ({**weights, first: torch.zeros(7, 7)}, rf"{inner} is \[7, 7\], not \[2, "),
    ):
        save_file(changed, saved / WEIGHTS)
        with pytest.raises(InputError, match=message):
            pretrained(transformers.AutoModelForCausalLM, str(saved))
        with pytest.raises(ValueError, match=message):
            restore_adapter(model, saved)
    (saved / WEIGHTS).write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="are damaged"):
        pretrained(transformers.AutoModelForCausalLM, str(saved))
    (saved / WEIGHTS).unlink()
    (saved / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(InputError, match="cannot load adapter"):
        pretrained(transformers.AutoModelForCausalLM, str(saved))


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (
            {"lora_target_modules": ["query_key"]},
            "no such adapter for a llama model: .*query_key",
            "q_proj k_proj v_proj",
        ),
        ({"lora_target_modules": ["q_proj", "v_porj"]}, "no such adapter for a llama model: .*v_porj", "v_proj"),
        ({"lora_modules_to_save": ["nothing"]}, "no such adapter for a llama model: .*nothing", "q_proj"),
        ({"peft_config": "{'peft_type': 'NOPE'}"}, "--peft_config: unknown 'NOPE'", "documentation"),
        ({"peft_config": "{'peft_type': 'LORA', 'r': 2, 'rr': 2}"}, "--peft_config: .*rr", "documentation"),
        (
            {"peft_config": "{'peft_type': 'PROMPT_TUNING'}"},
            "PROMPT_TUNING adds words to the input",
            "another peft_type, such as LORA",
        ),
        ({"peft_config": "{'peft_type': 'PREFIX_TUNING'}"}, "PREFIX_TUNING adds words to the input", "such as LORA"),
        *(
            (
                {"peft_config": f"{{'peft_type': '{kind}', 'target_modules': ['nope']}}"},
                "no such adapter for a llama model: it has no module 'nope'",
                "config.yaml', or target_modules with some of its linear layers: q_proj",
            )
            for kind in ("OFT", "IA3", "LOHA", "LOKR")
        ),
        (
            {"peft_config": "{'peft_type': 'VERA', 'target_modules': ['q_proj']}"},
            "no such adapter for a llama model: .*VERA",
            "another peft_type in ",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: dict[str, Any], message: str, hint: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    if text := settings.get("peft_config"):
        (tmp_path / "config.yaml").write_text(text)
        settings = {"use_peft": False, "peft_config": str(tmp_path / "config.yaml")}
    with pytest.raises(InputError, match=message) as refused:
        loaded(model_folders["llama"], CAUSAL_LM, **settings)
    assert hint in refused.value.hint
    assert ("--lora" in refused.value.hint) == ("use_peft" not in settings)


def test_what_would_not_be_saved_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(model_folders["llama"], folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in weights.items() if name != "lm_head.weight"}, folder / "model.safetensors", {"format": "pt"})  # noqa: E501  # fmt: skip
    chosen = ModelSettings(model_name_or_path=str(folder), allow_new_weights=True)
    tokenizer, config = load_tokenizer(str(folder), chosen, CAUSAL_LM), load_config(chosen, CAUSAL_LM)

    def load(**settings: Any) -> Any:
        return load_model(chosen, CAUSAL_LM, config, tokenizer, 1, adapter=AdapterSettings(use_peft=True, **settings))

    with pytest.raises(InputError, match=r"neither trained nor saved, such as lm_head\.weight") as refused:
        load()
    assert refused.value.hint == "--lora_modules_to_save lm_head"
    assert load(lora_modules_to_save=["lm_head"]).new_weights == ("lm_head.weight",)
    tokenizer.add_tokens(["quite-new"])
    with pytest.raises(InputError, match=r"has 1 tokens more than .* an adapter cannot learn them"):
        load(lora_modules_to_save=["lm_head"])


def test_an_adapter_is_not_put_upon_another(saved: Path, model_folders: dict[str, Path]) -> None:
    for file in model_folders["llama"].glob("tokenizer*"):
        shutil.copy(file, saved)
    with pytest.raises(InputError, match="is an adapter already, and trained on"):
        loaded(saved, CAUSAL_LM)


def test_without_peft_it_is_said_what_to_install(
    saved: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="adapters need the package peft") as refused:
        loaded(model_folders["llama"], CAUSAL_LM)
    assert refused.value.hint == "pip install lmtasks[peft]"
    with pytest.raises(InputError, match="adapters need the package peft"):
        pretrained(transformers.AutoModelForCausalLM, str(saved))


def test_an_old_peft_is_named(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "MIN_PEFT_VERSION", "99.0")
    with pytest.raises(InputError, match=rf"adapters need peft 99\.0 or later, this is {re.escape(peft.__version__)}"):
        loaded(model_folders["llama"], CAUSAL_LM)
