"""The file of a mix: what it may say, and what each mistake in it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.mix import read_mix
from lmtasks.config.request import as_record, configure, fingerprint
from lmtasks.errors import InputError

GOOD = """
sources:
  - {name: wiki, train_file: a.txt, weight: 0.8, sample-by: line, validation_file: v.txt}
  - {name: code, dataset: org/code, split: "train[:50%]", probability: 2e-1}
stopping_strategy: all_exhausted
"""

READ = {
    "sources": [
        {"name": "wiki", "weight": 0.8, "train_file": ["a.txt"], "sample_by": "line", "validation_file": ["v.txt"]},
        {"name": "code", "weight": 0.2, "dataset_name": "org/code", "train_split": "train[:50%]"},
    ],
    "stopping_strategy": "all_exhausted",
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_is_read_under_the_names_of_the_options() -> None:
    Path("mix.yaml").write_text(GOOD)
    assert read_mix("mix.yaml") == READ
    assert read_mix(READ) == READ, "reading it again changes nothing"
    assert read_mix({"sources": READ["sources"]})["stopping_strategy"] == "first_exhausted"


def test_the_record_of_a_run_has_the_mix_and_not_the_name_of_its_file() -> None:
    Path("mix.yaml").write_text(GOOD)
    request = configure(CAUSAL_LM, {"data": "mix.yaml"})
    assert request.data.data == as_record(request)["settings"]["data"] == READ
    assert request.sample is None, "a mix takes the place of the sample"
    Path("mix.yaml").write_text(GOOD.replace("0.8", "0.7"))
    assert fingerprint(configure(CAUSAL_LM, {"data": "mix.yaml"})) != fingerprint(request)


A: dict[str, Any] = {"name": "a", "train_file": "a.txt", "weight": 1}


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ({"sources": [{**A, "weight": None}]}, "--data, source 'a' has no weight", "weight: 0.5"),
        ({"sources": [{**A, "weight": -1}]}, "source 'a': weight cannot be -1: it must be at least 0", ""),
        ({"sources": [{**A, "weight": "much"}]}, "source 'a': weight cannot be 'much': it must be a number", ""),
        ({"sources": [{**A, "weight": float("inf")}]}, "source 'a': weight cannot be inf", ""),
        ({"sources": [{**A, "weight": 0}, {**A, "name": "b", "weight": 0}]}, "--data: every weight is 0", "above 0"),
        ({"sources": [A, A]}, "--data: two sources have the name 'a'", ""),
        ({"sources": [{**A, "name": None}]}, "--data: source 1 has no name", "name: wiki"),
        ({"sources": [{**A, "name": "loss"}]}, "--data: an evaluation set cannot be called 'loss'", ""),
        ({"sources": [{**A, "wieght": 1}]}, "source 'a': unknown key 'wieght', did you mean 'weight'?", "a source has"),
        ({"sources": [{**A, "train_dataset": 1}]}, "source 'a': unknown key 'train_dataset'", ""),
        ({"sources": [{**A, "max_train_samples": 1}]}, "source 'a': unknown key 'max_train_samples'", ""),
        ({"sources": [{**A, "probability": 1}]}, "source 'a': weight is given twice, as 'weight' and as 'prob", ""),
        ({"sources": [{**A, "sample_by": "word"}]}, "source 'a': --sample_by cannot be 'word'", ""),
        ({"sources": [{"name": "a", "weight": 1}]}, "source 'a' has no data to train on", "train_file or dataset_name"),
        ({"sources": [{**A, "dataset": "x/y"}]}, "source 'a' has both dataset_name and train_file", ""),
        ({"sources": []}, "--data: sources must be a list", "sources: [{name: wiki"),
        ({"sources": ["a.txt"]}, "--data: sources must be a list", ""),
        ({"source": [A]}, "--data: unknown key 'source', did you mean 'sources'?", ""),
        ({"sources": [A], "stopping_strategy": "first"}, "--data: stopping_strategy cannot be 'first'", "first_exh"),
    ],
)
def test_mistakes(content: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        configure(CAUSAL_LM, {"data": content})
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_mistakes_in_a_file_name_the_file() -> None:
    Path("mix.yaml").write_text(GOOD.replace("probability", "propability"))
    for name, message in {
        "mix.yaml": "--data 'mix.yaml', source 'code': unknown key 'propability', did you mean 'probability'?",
        "gone.yaml": "cannot read --data 'gone.yaml': No such file",
    }.items():
        with pytest.raises(InputError) as caught:
            configure(CAUSAL_LM, {"data": name})
        assert message in caught.value.message
    Path("list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match=r"--data 'list.yaml' must hold 'name: value' lines"):
        read_mix("list.yaml")
