"""Extensions: options, callbacks, metrics, trackers and commands for every recipe, and whose fault it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_folder import plugin_folder
from safetensors.torch import load_file

from lmtasks import Command, Extension, InputError
from lmtasks.config.commands import COMMANDS

CODE = '''
"""An extension with everything, of which a part fails when the environment says so."""

import os
from dataclasses import dataclass

from lmtasks import Command, Extension, InputError, hookimpl, option


def fail(stage):
    if os.environ.get("FAULT") == stage:
        raise ZeroDivisionError(f"broken {stage}")


@dataclass(frozen=True, kw_only=True)
class Options:
    last: int | None = option(None, help="the last step", ge=1, aliases=["end"])


def callbacks(recipe, options):
    fail("making callbacks")
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **named):
            fail("callbacks")
            if state.global_step == options.last:
                control.should_training_stop = True
                return control

    if os.environ.get("FAULT") == "something else":
        return ["a text"]
    return [Stop()] if options.last else []


def tracker(options):
    from transformers import TrainerCallback

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs, **named):
            fail("tracker")
            with open("tracked.txt", "a") as file:
                print(state.global_step, *sorted(logs), file=file)

    return Tracker()


def command(words):
    fail("command")
    if words == ["--help"]:
        print("usage: lmtasks greet NAME")
        return 0
    if not words:
        raise InputError("greet needs a name", "lmtasks greet NAME")
    print("hello", *words)
    return None if os.environ.get("FAULT") == "silent command" else 0


def __getattr__(name):
    """The metric, made when it is named: it needs heavy imports."""
    if name not in ("Half", "Foreign"):
        raise AttributeError(name)
    import datasets
    import evaluate

    class Half(evaluate.Metric):
        greater_is_better = {"loss": False}

        def _info(self):
            names = {"Half": ["loss", "targets"], "Foreign": ["notes"]}[name]
            features = datasets.Features({name: datasets.Value("float64") for name in names})
            return evaluate.MetricInfo(description="", citation="", features=features)

        def _compute(self, loss, targets):
            fail("metrics")
            return {"loss": sum(loss) / sum(targets) / 2}

    return Half


@hookimpl
def lmtasks_extensions():
    return [
        Extension(
            name="all-of-it",
            summary="Everything that there is.",
            options=Options,
            callbacks=callbacks,
            metrics=[f"{__name__}:Half", f"{__name__}:Foreign"],
            trackers={"notebook": tracker},
            commands=[Command(name="greet", takes="NAME", summary="say hello", run=f"{__name__}:command")],
        )
    ]
'''

RUN = ["--train_file", "text.txt", "--block_size", "16", "--max_steps", "3", "--max_eval_samples", "4"]
MODEL = ["masked-lm", "--model", "model", *RUN, "--learning_rate", "1e-3"]


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the plugin's module, in a folder with a text and a model."""
    with plugin_folder(tmp_path, "extending", CODE, text_file, model_folders["roberta"], monkeypatch) as name:
        yield name


def record(folder: str) -> dict[str, Any]:
    """``run.json``."""
    return dict(json.loads((Path(folder) / "run.json").read_text()))


def test_a_run_that_asks_for_it(here: str, lmtasks: Any) -> None:
    asking = ["--all_of_it.last", "2", "--report_to", "notebook", "--plugin", here]
    done = lmtasks("run", *MODEL, "--output_dir", "out", *asking, "--logging_steps", "1")
    assert done.code == 0, done.err
    kept = record("out")
    assert kept["stopped_early"] == 2, "one of its callbacks ended the run, and it is finished"
    assert kept["status"] == "done"
    assert kept["extensions"] == {"all_of_it.last": 2}
    assert kept["metrics"]["all_of_it_loss"] == pytest.approx(kept["metrics"]["eval_loss"] / 2)
    assert "notes" not in kept["metrics"], "the recipe has no sum of that name"
    tracked = Path("tracked.txt").read_text().splitlines()
    assert [line.split()[0] for line in tracked] == ["1", "2", "2"]
    assert all("loss" in line for line in tracked)

    again = lmtasks("evaluate", "out", "--plugin", here, "--json")
    assert json.loads(again.out)["all_of_it_loss"] == kept["metrics"]["all_of_it_loss"]


def test_another_value_is_another_run(here: str, lmtasks: Any) -> None:
    run = ["run", *MODEL, "--output_dir", "out", "--plugin", here]
    assert lmtasks(*run, "--all_of_it.last", "2").code == 0
    other = lmtasks(*run, "--all_of_it.last", "1", "--resume_from_checkpoint", "true")
    assert other.code == 2
    assert "--all_of_it.last 2 there" in other.err


def test_installed_and_not_asked_for_it_changes_nothing(here: str, lmtasks: Any) -> None:
    for folder, more in (("plain", []), ("extended", ["--plugin", here])):
        assert lmtasks("run", *MODEL, "--output_dir", folder, *more).code == 0
    plain, extended = record("plain"), record("extended")
    assert load_file("plain/model.safetensors").keys() == load_file("extended/model.safetensors").keys()
    assert Path("plain/model.safetensors").read_bytes() == Path("extended/model.safetensors").read_bytes()
    assert plain["request"] == extended["request"], "a run of before goes on where it is installed"
    assert "extensions" not in extended


def test_flags_yaml_and_python_are_one(here: str, lmtasks: Any) -> None:
    flags = lmtasks("run", *MODEL, "--output_dir", "flags", "--plugin", here, "--all_of_it.last", "1")
    Path("config.yaml").write_text("all_of_it.end: 1\n")
    yaml = lmtasks("run", *MODEL, "--output_dir", "yaml", "--plugin", here, "--config", "config.yaml")
    assert (flags.code, yaml.code) == (0, 0), yaml.err
    assert record("flags")["request"] == record("yaml")["request"]
    assert record("yaml")["stopped_early"] == 1
    schema = json.loads(lmtasks("schema", "masked-lm", "--plugin", here).out)
    assert schema["properties"]["all_of_it.last"]["description"] == "the last step"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--all_of_it.last", "0"], "--all_of_it.last cannot be '0': it must be a whole number at least 1"),
        (["--all_of_it.lst", "1"], "unknown option '--all_of_it.lst', did you mean 'all_of_it.last'?"),
        (["--all_of_it.last", "1", "--all_of_it.end", "1"], ""),
        (["--last", "1"], "unknown option '--last'"),
        (["--report_to", "notebok"], "unknown tracker 'notebok', did you mean 'notebook'?"),
    ],
)
def test_what_is_typed_wrong_is_refused(flags: list[str], told: str, here: str, lmtasks: Any) -> None:
    done = lmtasks("run", *MODEL, "--output_dir", "out", "--plugin", here, "--dry_run", *flags)
    assert done.code == (2 if told else 0)
    assert told in done.err
    assert not Path("out").exists()


def test_an_evaluation_has_no_use_for_its_options(here: str, lmtasks: Any) -> None:
    done = lmtasks("evaluate", "model", "--validation_file", "text.txt", "--plugin", here, "--all_of_it.last", "1")
    assert (done.code, "--all_of_it.last means nothing to an evaluation" in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("fault", "stage"),
    [("making callbacks", "callbacks"), ("callbacks", "callbacks"), ("tracker", "callbacks"), ("metrics", "metrics")],
)
def test_each_part_that_fails_is_named(
    fault: str, stage: str, here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", fault)
    flags = ["--all_of_it.last", "2", "--report_to", "notebook", "--plugin", here, "--output_dir", "out"]
    done = lmtasks("run", *MODEL, *flags)
    where = rf"ZeroDivisionError: broken {fault} \({here}.py, line \d+\)\nhint: the same command with --traceback"
    assert done.code == 1, done.err
    assert re.search(rf"error: extension 'all-of-it' of {here} failed in its {stage}: {where}", done.err), done.err
    assert "Traceback" not in done.err


def test_what_is_no_callback_is_refused(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "something else")
    done = lmtasks("run", *MODEL, "--output_dir", "out", "--plugin", here, "--all_of_it.last", "2")
    assert done.code == 1
    assert "extension 'all-of-it' makes a str, which is no TrainerCallback" in done.err
    assert not Path("out").exists(), "it was found while nothing was written"


def test_a_tracker_that_transformers_has(here: str, lmtasks: Any) -> None:
    path = Path(f"{here}.py")
    path.write_text(path.read_text().replace('"notebook"', '"wandb"'))
    done = lmtasks("run", *MODEL, "--output_dir", "out", "--plugin", here, "--report_to", "wandb")
    assert (done.code, "has a tracker 'wandb', which is the name of one of transformers" in done.err) == (1, True)


def test_a_command(here: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = lmtasks("greet", "--some-flag", "you", "--plugin", here)
    assert (said.code, said.out) == (0, "hello --some_flag you\n")
    refused = lmtasks("greet", "--plugin", here)
    assert (refused.code, refused.err) == (2, "error: greet needs a name\nhint: lmtasks greet NAME\n")
    assert "greet NAME" in lmtasks("--help", "--plugin", here).out
    assert "greet" not in lmtasks("--help").out
    unknown = lmtasks("gret", "--plugin", here)
    assert (unknown.code, unknown.err.splitlines()[0]) == (2, "error: unknown command 'gret', did you mean 'greet'?")
    monkeypatch.setenv("FAULT", "command")
    broken = lmtasks("greet", "you", "--plugin", here)
    assert broken.code == 1
    assert f"error: extension 'all-of-it' of {here} failed in its command 'greet': ZeroDivisionError" in broken.err
    monkeypatch.setenv("FAULT", "silent command")
    silent = lmtasks("greet", "you", "--plugin", here)
    assert silent.code == 1
    assert f"failed in its command 'greet': it gives None ({here}.py, line " in silent.err
    assert "hint: return the exit code, 0 where all is well\n" in silent.err


def test_help_stays_light(here: str) -> None:
    heavy = "('torch', 'transformers', 'datasets', 'evaluate', 'numpy')"
    code = f"""
import sys
from lmtasks.cli.app import main
for words in (["--help"], ["plugins"], ["greet", "--help"], ["run", "masked-lm", "--help"],
              ["run", "masked-lm", "--help", "all-of-it"]):
    try:
        main([*words, "--plugin", {here!r}])
    except SystemExit:
        pass
print("imported", *(name for name in {heavy} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported"
    assert "extension all-of-it:\n  --all_of_it.last, --all_of_it.end N\n" in done.stdout


def test_it_is_listed(here: str, lmtasks: Any) -> None:
    assert f"{here}: all-of-it" in lmtasks("plugins", "--plugin", here).out
    (own,) = (one for one in json.loads(lmtasks("plugins", "--json", "--plugin", here).out) if one["name"] == here)
    assert own["extensions"] == ["all-of-it"]
    assert own["commands"] == [{"name": "greet", "takes": "NAME", "summary": "say hello"}]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Extension(name="Big", summary="x"), "extension 'Big' must be lower case letters, digits and single"),
        (lambda: Extension(name="a--b", summary="x"), "extension 'a--b' must be"),
        (lambda: Extension(name="a", summary="x", trackers={"W B": print}), "tracker 'W B' must be"),
        (lambda: Extension(name="a", summary="x", trackers={"w": "nowhere"}), "'nowhere' must look like 'module:func"),
        (lambda: Extension(name="a", summary="x", metrics=["nowhere"]), "'nowhere' must look like 'module:Class'"),
        (lambda: Extension(name="a", summary="x", callbacks="x"), "'x' must look like 'module:function'"),
        (lambda: Command(name="two words", summary="x", run=print), "command 'two words' must be"),
    ],
)
def test_a_declaration_of_the_wrong_shape(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        make()


def _with(name: str = "one", command: str = "greet", tracker: str = "book") -> Extension:
    commands = [Command(name=command, summary="x", run=print)]
    return Extension(name=name, summary="x", commands=commands, trackers={tracker: print})


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([_with(command="run")], "the command 'run' is built in"),
        ([_with(), _with("two", tracker="other")], "its extensions have the command 'greet' twice"),
        ([_with(), _with("two", command="other")], "its extensions have the tracker 'book' twice"),
        ([_with(), _with()], "lmtasks_extensions returns 'one' twice"),
        (["a text"], "lmtasks_extensions must return Extension objects, got 'a text'"),
    ],
)
def test_names_that_clash_within_a_plugin(others: list[Any], told: str) -> None:
    from lmtasks.testing import installed

    with pytest.raises(InputError, match=re.escape(told)), installed(extensions=others):
        pass


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (_with(command="other", tracker="other"), "extension 'one' already belongs to"),
        (_with("two", tracker="other"), "command 'greet' already belongs to"),
        (_with("two", command="other"), "tracker 'book' already belongs to"),
    ],
)
def test_names_that_clash_between_plugins(other: Extension, told: str) -> None:
    from lmtasks.testing import installed

    with installed(extensions=[_with()]), pytest.raises(InputError, match=told), installed(extensions=[other]):
        pass


def test_no_command_of_ours_can_be_taken() -> None:
    from lmtasks.testing import installed

    for name in COMMANDS:
        with pytest.raises(InputError, match="is built in"), installed(extensions=[_with(command=name)]):
            pass
