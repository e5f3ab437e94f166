"""Declared architectures and transformers' Auto classes."""

import subprocess
import sys
import textwrap
import warnings

import pytest

from lmtasks import Architecture, Catalog, register_architectures


def registered(architecture: Architecture) -> None:
    register_architectures(Catalog({}, {architecture.model_type: architecture}, ()))


def test_facts_about_a_type_that_this_transformers_lacks_are_no_fault() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registered(Architecture(model_type="of-a-later-release", tiny={"hidden_size": 8}))


def test_classes_of_a_type_without_a_configuration_cannot_be_used() -> None:
    models = {"AutoModelForMaskedLM": "transformers:BertForMaskedLM"}
    with pytest.warns(
        UserWarning, match="'of-nobody' cannot be used: transformers has no such model type, and the decl"
    ):
        registered(Architecture(model_type="of-nobody", models=models))


def test_a_type_that_transformers_has_keeps_its_configuration() -> None:
    with pytest.warns(UserWarning, match="transformers already has this model type, as BertConfig"):
        registered(Architecture(model_type="bert", config="transformers:GPT2Config"))


def test_classes_of_transformers_are_imported_when_they_are_asked_for() -> None:
    code = """
        import sys
        from lmtasks import register_architectures
        register_architectures()
        assert "transformers.models.emu3.modeling_emu3" not in sys.modules
        from transformers import AutoModelForCausalLM, Emu3TextConfig
        small = dict(num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=1, vocab_size=9)
        config = Emu3TextConfig(**small, num_key_value_heads=1, pad_token_id=0, bos_token_id=1, eos_token_id=2)
        print(type(AutoModelForCausalLM.from_config(config)).__name__)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout == "Emu3ForCausalLM\n", done.stderr
