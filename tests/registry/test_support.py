"""Architectures: what is declared about a model type is heeded, and what is known of all of them is told."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

import lmtasks
from lmtasks import Architecture, InputError
from lmtasks.builtin.architectures import ARCHITECTURES
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.models.architectures import adapted, register_architectures
from lmtasks.models.config import fit_to_tokenizer, usable_length
from lmtasks.models.lm_head import separate_head
from lmtasks.models.pad_to_multiple import fill_up
from lmtasks.models.probes import probe
from lmtasks.models.tiny import shrunk
from lmtasks.registry.plugin import Plugin
from lmtasks.registry.support import package_of, recorded, rows

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
DECLARED = {one.model_type: one for one in ARCHITECTURES}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register_architectures()


def tiny(kind: str, auto: Any = transformers.AutoModelForMaskedLM, **settings: Any) -> Any:
    declared = DECLARED.get(kind, Architecture(model_type=kind))
    config = shrunk(CONFIG_MAPPING[kind]())
    for name, value in {**declared.fresh, "vocab_size": 300, "pad_token_id": 1, **settings}.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return auto.from_config(config).float().eval()


def ids(length: int = 20, count: int = 2) -> torch.Tensor:
    return torch.randint(5, 300, (count, length), generator=torch.Generator().manual_seed(3))


def run(recipe: str, folder: Path, tokenizer: Any, **more: Any) -> Any:
    tokenizer.save_pretrained(folder / "tokenizer")
    values = {"tokenizer_name": str(folder / "tokenizer"), "output_dir": str(folder / "out"), "block_size": 32}
    text = ["the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 3] * 10
    data = {"train_dataset": text, "eval_dataset": text[:2], "max_steps": 2}
    return lmtasks.run(recipe, **{**values, **data, **more})


# --- tiny models ---


@pytest.mark.parametrize("kind", sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
def test_a_tiny_masked_model_of_every_type_can_be_made(kind: str, masked_tokenizer: Any) -> None:
    config = fit_to_tokenizer(shrunk(CONFIG_MAPPING[kind]()), masked_tokenizer)
    with torch.device("meta"):
        model = transformers.AutoModelForMaskedLM.from_config(config)
    assert sum(one.numel() for one in model.parameters()) < 2_000_000


@pytest.mark.parametrize("kind", sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)[::6])
def test_tiny_causal_models_can_be_made(kind: str) -> None:
    declared = DECLARED.get(kind, Architecture(model_type=kind))
    if declared.refused:
        pytest.skip("refused")
    config = shrunk(CONFIG_MAPPING[kind]())
    for name, value in declared.causal.items():
        setattr(config, name, value)
    with torch.device("meta"):
        transformers.AutoModelForCausalLM.from_config(config)


def test_each_kind_of_layer_is_kept_once() -> None:
    config = shrunk(CONFIG_MAPPING["neomme"]())
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert config.num_hidden_layers == len(config.layer_types) == 2


# --- what is declared ---


def test_a_fresh_encoder_becomes_a_decoder_where_it_must(tmp_path: Path, causal_tokenizer: Any) -> None:
    shape = "hidden_size=32,num_hidden_layers=2,num_attention_heads=2,intermediate_size=64"
    done = run("causal-lm", tmp_path, causal_tokenizer, model_type="roberta", config_overrides=shape)
    config = transformers.AutoConfig.from_pretrained(done.output_dir)
    assert config.is_decoder and config.hidden_size == 32
    model = transformers.AutoModelForCausalLM.from_pretrained(done.output_dir).eval()
    one = ids(12, 1)
    other = one.clone()
    other[0, -1] = 7
    with torch.no_grad():
        assert torch.equal(model(input_ids=one).logits[:, :-1], model(input_ids=other).logits[:, :-1])


def test_a_checkpoint_that_sees_both_sides_is_refused_with_what_would_change_it(
    tmp_path: Path, model_folders: dict[str, Path], masked_tokenizer: Any
) -> None:
    with pytest.raises(InputError, match="it sees the tokens that it should predict") as refusal:
        run("causal-lm", tmp_path, masked_tokenizer, model=str(model_folders["roberta"]), tokenizer_name=None)
    assert '"is_decoder": true in its config.json' in refusal.value.hint
    assert not (tmp_path / "out").exists()
    changed = shutil.copytree(model_folders["roberta"], tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "is_decoder": True}))
    run("causal-lm", tmp_path, masked_tokenizer, model=str(changed), tokenizer_name=None)


def test_fresh_settings_are_in_the_configuration_and_can_be_overridden(tmp_path: Path, masked_tokenizer: Any) -> None:
    shape = "hidden_size=32,num_hidden_layers=1,num_attention_heads=2,intermediate_size=64"
    done = run("masked-lm", tmp_path, masked_tokenizer, model_type="xmod", config_overrides=shape)
    assert transformers.AutoConfig.from_pretrained(done.output_dir).default_language == "en_XX"


@pytest.mark.parametrize("kind", ["xlnet", "cpmant", "xlm", "musicgen"])
def test_what_cannot_be_trained_is_refused_with_its_reason(kind: str, tmp_path: Path, causal_tokenizer: Any) -> None:
    with pytest.raises(InputError, match=f"causal-lm cannot train '{kind}': ") as refusal:
        run("causal-lm", tmp_path, causal_tokenizer, model_type=kind)
    assert DECLARED[kind].refused["AutoModelForCausalLM"] in refusal.value.message
    assert not (tmp_path / "out").exists()


def test_idle_parameters_stay_and_all_others_learn() -> None:
    model = adapted(tiny("luke"), MASKED_LM)
    model.train()
    model(input_ids=ids()).logits.square().sum().backward()
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {name for name, one in model.named_parameters() if one.grad is not None}
    assert not any("entity" in name for name in trained)


def test_idle_is_what_it_is_for_one_class_only() -> None:
    cross = "model.decoder.layers.0.encoder_attn.k_proj.weight"
    masked = adapted(tiny("bart"), MASKED_LM)
    causal = adapted(tiny("bart", transformers.AutoModelForCausalLM, is_decoder=True), CAUSAL_LM)
    assert dict(masked.named_parameters())[cross].requires_grad
    assert not dict(causal.named_parameters())[cross].requires_grad


def test_a_padding_row_that_loading_empties_is_never_filled(tmp_path: Path) -> None:
    model = adapted(tiny("youtu", transformers.AutoModelForCausalLM, bos_token_id=0, eos_token_id=2), CAUSAL_LM)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model(input_ids=ids()).logits.logsumexp(-1).sum().backward()
    optimiser.step()
    table = model.get_input_embeddings().weight
    assert not table[1].count_nonzero() and table[2].count_nonzero()
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.get_input_embeddings().weight, table)


# --- lengths ---


def test_an_input_is_filled_up_and_its_logits_are_those_of_a_padded_one() -> None:
    model = tiny("perceiver")
    short = ids(20)
    padded = torch.nn.functional.pad(short, (0, 44), value=1)
    mask = torch.nn.functional.pad(torch.ones_like(short), (0, 44))
    with torch.no_grad():
        expected = model(input_ids=padded, attention_mask=mask).logits[:, :20]
        fill_up(model, 64)
        assert torch.equal(model(input_ids=short).logits, expected)
        assert model(input_ids=padded, attention_mask=mask).logits.shape[1] == 64


def test_filled_inputs_take_targets_too() -> None:
    recipe, model = MASKED_LM, tiny("roberta")
    labels = ids().masked_fill(torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) > 0.3, -100)
    batch = {"input_ids": ids(), "labels": labels}
    with torch.no_grad():
        plain = recipe.loss(model, batch)[0].item()
        fill_up(model, 32)
        assert recipe.loss(model, batch)[0].item() == pytest.approx(plain, rel=1e-6)
        assert separate_head(model, {"input_ids": ids(32, 1)}) is None
        assert recipe.loss(model, batch)[0].item() == pytest.approx(plain, rel=1e-6)


def test_a_copy_of_a_filled_model_is_its_own() -> None:
    model = tiny("roberta")
    fill_up(model, 32)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for one in twin.parameters():
            one.zero_()
        assert twin(input_ids=ids()).logits.abs().max() == 0
        assert model(input_ids=ids()).logits.abs().max() > 0


def test_usable_length_is_the_declared_one(masked_tokenizer: Any) -> None:
    assert usable_length(shrunk(CONFIG_MAPPING["reformer"]()), MASKED_LM, masked_tokenizer) == 64


# --- probes ---


@pytest.mark.parametrize("kind", ["longformer", "ibert", "perceiver", "reformer", "neomme"])
def test_models_that_embed_otherwise_can_be_probed(kind: str) -> None:
    model = adapted(tiny(kind), MASKED_LM)
    before = copy.deepcopy(model.state_dict())
    batch = {"input_ids": ids(32, 1), "labels": ids(32, 1)}
    probe(model, MASKED_LM, batch)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="it sees the tokens"):
        probe(model, CAUSAL_LM, batch)


def test_a_model_that_padding_disturbs_is_refused_line_by_line_only(tmp_path: Path, masked_tokenizer: Any) -> None:
    shape = "hidden_size=32,num_hidden_layers=1,intermediate_size=64"
    lines = ["the quick brown fox", "jumps", "over the lazy dog and the dog sleeps", "again"] * 5
    fnet = {"model_type": "fnet", "config_overrides": shape, "train_dataset": lines, "eval_dataset": lines[:4]}
    with pytest.raises(InputError, match="masked-lm cannot train this fnet model line by line"):
        run("masked-lm", tmp_path, masked_tokenizer, line_by_line=True, **fnet)
    run("masked-lm", tmp_path, masked_tokenizer, **fnet)


# --- what is known ---


def test_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lmtasks.cli import main; main(['architectures', 'causal-lm']);"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "llama" in done.stdout


def test_every_type_of_transformers_has_a_row(lmtasks: Any) -> None:
    for recipe, names in (
        ("masked-lm", MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("causal-lm", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    ):
        rows = json.loads(lmtasks("architectures", recipe, "--json").out)
        known = {row["model_type"]: row for row in rows}
        assert names.keys() <= known.keys()
        assert all(row["notes"] for row in rows if row["state"] in ("refused", "limited"))
        right = sum(known[name]["state"] != "refused" for name in names)
        assert right >= 0.95 * len(names)


def test_a_type_is_proved_on_the_spot(lmtasks: Any) -> None:
    done = lmtasks("architectures", "causal-lm", "--prove", "gpt2", "--json")
    (row,) = json.loads(done.out)
    assert (done.code, row["model_type"], row["state"]) == (0, "gpt2", "runs")
    assert row["checks"]["accumulation-does-not-matter"] == "ok"


def test_a_refused_type_makes_the_proof_fail(lmtasks: Any) -> None:
    done = lmtasks("architectures", "causal-lm", "--prove", "xlnet")
    assert done.code == 3
    assert "it learns to predict tokens in any order" in done.out


def test_mistakes_of_the_command(lmtasks: Any) -> None:
    done = lmtasks("architectures", "causal-lm", "--prove", "gtp2")
    assert done.code == 2
    assert "causal-lm knows no model type 'gtp2', did you mean 'gpt2'?" in done.err or "gpt2" in done.err
    done = lmtasks("architectures", "causal-lm", "gpt2")
    assert done.code == 2
    assert "lmtasks architectures causal-lm --prove gpt2" in done.err


# --- the page ---


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures_script", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_makes_of_the_evidence(script: ModuleType) -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.page(recorded())


def test_every_architecture_of_the_guides_runs(script: ModuleType) -> None:
    rows = script.guides(recorded())[2:]
    assert len(rows) == 45
    assert not [row for row in rows if "| runs |" not in row and "| limited |" not in row]


def test_other_results_are_differences(script: ModuleType) -> None:
    old = {"recipes": {"masked-lm": [{"model_type": "bert", "state": "runs"}, {"model_type": "mra", "state": "runs"}]}}
    new = {"recipes": {"masked-lm": [{"model_type": "bert", "state": "refused"}]}}
    assert script.differences(old, new) == [
        "masked-lm bert: runs was written down, refused was measured",
        "masked-lm mra: runs was written down, nothing was measured",
    ]
    assert not script.differences(old, old)


def test_a_row_of_a_package_that_is_not_there_says_so() -> None:
    nothing = lmtasks.Catalog({"masked-lm": MASKED_LM}, {}, ())
    known = {row.model_type: row for row in rows(MASKED_LM, nothing)}
    assert (known["nezha"].state, known["nezha"].package) == ("in a package", "lmtasks-nezha")
    assert "nezha" in known["nezha"].line()


def test_a_plugins_type_that_was_not_measured_is_declared() -> None:
    own = Architecture(model_type="odd", models={"AutoModelForMaskedLM": "odd.model:Odd"})
    plugin = Plugin("lmtasks-odd", "1.0", "odd", architectures=("odd",))
    (row,) = [
        row
        for row in rows(MASKED_LM, lmtasks.Catalog({"masked-lm": MASKED_LM}, {"odd": own}, (plugin,)))
        if row.model_type == "odd"
    ]
    assert (row.state, row.package) == ("declared", "lmtasks-odd")


def test_an_unknown_type_that_a_package_has_is_found_there(tmp_path: Path, masked_tokenizer: Any) -> None:
    assert package_of("nezha") == "lmtasks-nezha"
    assert not package_of("bert") and not package_of("nothing")
    if "nezha" in CONFIG_MAPPING:
        pytest.skip("the package is installed")
    with pytest.raises(InputError, match="model type 'nezha' is in the package lmtasks-nezha") as refusal:
        run("masked-lm", tmp_path, masked_tokenizer, model_type="nezha")
    assert refusal.value.hint == "pip install lmtasks-nezha"


def test_the_evidence_has_one_row_a_line(script: ModuleType) -> None:
    content = json.loads(script.EVIDENCE.read_text(encoding="utf-8"))
    assert script.one_row_a_line(content) == script.EVIDENCE.read_text(encoding="utf-8")
    assert json.loads(script.one_row_a_line(content)) == content
