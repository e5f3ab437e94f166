"""Engines on the command line: named, listed, helped with, and refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_folder import plugin_folder

from lmtasks import load_catalog
from lmtasks.config.json_schema import schema_of
from lmtasks.testing import installed

CODE = '''
"""An engine that does nothing, and says with which options it would."""

import os
from dataclasses import dataclass

from lmtasks import Engine, InputError, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class Options:
    device: str = option("near", help="where it computes", aliases=["still_device"])
    slow: bool = option(False, help="take its time")


def check(training, options):
    raise InputError(f"it stands still: {options}", "--engine trainer")


@hookimpl
def lmtasks_engines():
    if os.environ.get("FAULT") == "name":
        return [Engine(name="trainer", summary="Another.", train="nowhere:train")]
    return [Engine(name="still", summary="Nothing moves.", train="nowhere:train", check=check, options=Options)]
'''


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the plugin's module, in a folder with a text and a model."""
    with plugin_folder(tmp_path, "engines", CODE, text_file, model_folders["roberta"], monkeypatch) as name:
        yield name


RUN = ["run", "masked-lm", "--model", "model", "--train_file", "text.txt", "--output_dir", "out", "--block_size", "16"]


def refused(lmtasks: Callable[..., Any], *words: str) -> list[str]:
    """The two lines of a refusal, of which nothing is written."""
    done = lmtasks(*RUN, *words)
    assert done.code == 2, done.err
    assert not Path("out").exists()
    return [line for line in done.err.splitlines() if line.startswith(("error: ", "hint: "))]


def test_engines_are_listed(here: str, lmtasks: Callable[..., Any]) -> None:
    rows = json.loads(lmtasks("list", "--engines", "--json", "--plugin", here).out)
    assert [row["name"] for row in rows] == ["trainer", "still"]
    assert rows[1] == {"name": "still", "summary": "Nothing moves.", "owner": here}
    told = lmtasks("list", "--engines", "--plugin", here).out.splitlines()
    assert told[1] == "still    Nothing moves."
    assert f"{here}: still" in lmtasks("plugins", "--plugin", here).out


def test_options_are_typed_behind_the_name_or_whole(here: str, lmtasks: Callable[..., Any]) -> None:
    chosen = ["--plugin", here, "--engine", "still"]
    told = refused(lmtasks, *chosen, "--still-device", "far", "--still.slow")
    assert told[0] == "error: it stands still: Options(device='far', slow=True)"
    Path("config.yaml").write_text("engine: still\nstill.device: 'there'\n")
    assert "device='there', slow=False" in refused(lmtasks, "--plugin", here, "--config", "config.yaml")[0]
    given = refused(lmtasks, *chosen, "--still_device", "far", "--still.device", "near")
    assert given[0].startswith("error: it stands still: Options(device='near'"), "the last one counts"


def test_what_means_nothing_is_refused(here: str, lmtasks: Callable[..., Any]) -> None:
    assert refused(lmtasks, "--plugin", here, "--still.slow") == [
        "error: --still.slow means nothing without --engine still",
        "hint: add --engine still, or leave --still.slow out",
    ]
    assert "unknown engine 'stil', did you mean 'still'?" in refused(lmtasks, "--plugin", here, "--engine", "stil")[0]
    assert refused(lmtasks, "--engine", "keras") == [
        "error: unknown engine 'keras'",
        "hint: pip install 'lmtasks-keras'",
    ]
    for flag in ("--keras_backend", "--keras.backend"):
        told = refused(lmtasks, flag, "jax")
        assert told[0] == f"error: {flag} is of the engine keras, which is not there"
        assert told[1].startswith("hint: pip install 'lmtasks-keras'")
    done = lmtasks("evaluate", "model", "--validation_file", "text.txt", "--engine", "trainer", "--recipe", "masked-lm")
    assert done.code == 2
    assert "--engine means nothing to an evaluation" in done.err


def test_several_processes_are_not_started_for_an_engine_of_one(here: str, lmtasks: Callable[..., Any]) -> None:
    told = refused(lmtasks, "--plugin", here, "--engine", "still", "--num_processes", "2")
    assert told == [
        "error: the engine still trains in one process, and here are 2",
        "hint: start one, or --engine trainer divides the work",
    ]


def test_help_has_the_options_of_each_engine(here: str, lmtasks: Callable[..., Any]) -> None:
    helped = lmtasks("run", "masked-lm", "--plugin", here, "--help", "still").out
    assert "--still.device TEXT" in helped or "--still.device, --still_device TEXT" in helped
    assert "where it computes" in helped
    assert "--engine TEXT" in lmtasks("run", "masked-lm", "--help", "loop").out


def test_a_broken_plugin_is_named_where_its_engine_is_asked_for(
    here: str, lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "name")
    told = refused(lmtasks, "--plugin", here, "--engine", "still")
    assert "engine 'trainer' already belongs to lmtasks:engines" in " ".join(told)


def test_a_config_that_names_an_engine_fits_the_schema(here: str) -> None:
    __import__(here)
    with installed(engines=sys.modules[here].lmtasks_engines()) as catalog:
        properties = schema_of(catalog.watched(catalog.recipe("masked-lm")))["properties"]
    assert properties["engine"]["default"] == "trainer"
    assert properties["still.device"]["default"] == "near"
    assert properties["still_device"]["$ref"] == "#/properties/still.device"
    assert "still.device" not in schema_of(load_catalog().recipe("masked-lm"))["properties"]
