"""Declared architectures and transformers' Auto classes."""

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
