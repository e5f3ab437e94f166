"""Launchers of plugins: how they come in, what their options are, whose fault it is; and what their processes call."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plugin_folder import plugin_folder

import lmtasks as package
from lmtasks import Extension, InputError, Job, Launcher, load_catalog
from lmtasks.testing import installed

CODE = '''
"""A launcher that starts nothing and writes down what it is asked for; a part fails when the environment says so."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lmtasks import InputError, Launcher, hookimpl, option


def fail(stage):
    if os.environ.get("FAULT") == stage:
        raise ZeroDivisionError(f"broken {stage}")


@dataclass(frozen=True, kw_only=True)
class Options:
    queue: str = option("short", help="which queue")
    hold: bool = option(False, help="begin later")


def check(job, options):
    fail("check")
    if options.queue == "none":
        raise InputError("there is no queue 'none'", "--pen_and_paper.queue short")


class Handle:
    def __init__(self, job, options):
        fail("submit")
        Path("job.json").write_text(json.dumps({"job": asdict(job), "options": asdict(options)}, default=str))
        self.stopped = False

    def wait(self):
        fail("handle")
        if os.environ.get("FAULT") == "interrupt" and not self.stopped:
            raise KeyboardInterrupt
        return 143 if self.stopped else 7

    def cancel(self):
        self.stopped = True

    def logs(self):
        return ""


@hookimpl
def lmtasks_launchers():
    return [
        Launcher(name="pen-and-paper", summary="Nothing at all.", options=Options, check=check, submit=Handle),
        Launcher(name="plain", summary="No options.", submit=lambda job, options: Handle(job, Options())),
    ]
'''


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the plugin's module, in a folder with a text and a model."""
    with plugin_folder(tmp_path, "launching", CODE, text_file, model_folders["roberta"], monkeypatch) as name:
        yield name


RUN = ["run", "masked-lm", "--model", "model", "--train_file", "text.txt", "--output_dir", "out"]


def asked() -> dict[str, Any]:
    """What the launcher was asked for."""
    return dict(json.loads(Path("job.json").read_text()))


def test_a_job_is_what_was_typed_without_how_it_is_launched(
    here: str, lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a_token_that_is_none")
    monkeypatch.setenv("WANDB_PROJECT", "a project")
    launch = ["--launcher", "pen-and-paper", "--num_processes", "3", "--num_nodes=2", "--pen_and_paper.queue", "long"]
    done = lmtasks(*RUN, *launch, "--pen_and_paper.hold", "--plugin", here, "--max_steps", "5")
    assert done.code == 7, done.err
    job, options = asked()["job"], asked()["options"]
    assert options == {"queue": "long", "hold": True}
    assert job["command"] == [*RUN, "--max_steps", "5", "--plugin", here]
    assert (job["processes"], job["nodes"], job["restarts"]) == (3, 2, True)
    assert job["cwd"] == str(Path.cwd())
    assert job["folder"] == str(Path.cwd() / "out")
    assert job["files"] == [str(Path.cwd() / name) for name in ("model", "text.txt")]
    assert "WANDB_PROJECT" in job["variables"]
    assert "HF_TOKEN" in job["secrets"]
    assert "HF_TOKEN" not in job["variables"]
    assert "hf_a_token" not in Path("job.json").read_text(), "names only"
    assert job["values"]["max_steps"] == "5"
    assert not Path("out").exists()


def test_files_that_a_command_names_are_its_config_and_its_recipe_as_well(
    here: str, lmtasks: Callable[..., Any]
) -> None:
    Path("recipe.py").write_text(
        "from dataclasses import replace\nfrom lmtasks.builtin.masked_lm import MASKED_LM\n"
        "MINE = replace(MASKED_LM, name='mine')\n"
    )
    Path("run.yaml").write_text("max_steps: 5\ntrain_file: text.txt\n")
    words = ["--model", "model", "--config", "run.yaml", "--launcher", "plain", "--plugin", here]
    assert lmtasks("run", "./recipe.py", *words).code == 7
    names = {Path(file).name for file in asked()["job"]["files"]}
    assert names == {"model", "text.txt", "run.yaml", "recipe.py"}
    assert asked()["job"]["folder"] is None


def test_an_evaluation_is_a_job_too(here: str, lmtasks: Callable[..., Any]) -> None:
    words = ["evaluate", "model", "--validation_file", "text.txt", "--json"]
    assert lmtasks(*words, "--launcher", "pen_and_paper", "--plugin", here).code == 7
    job = asked()["job"]
    assert job["command"] == [*words, "--plugin", here]
    assert (job["folder"], job["restarts"]) == (None, False)


def test_who_interrupts_the_waiting_gets_the_exit_code_of_what_was_stopped(
    here: str, lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "interrupt")
    done = lmtasks(*RUN, "--launcher", "plain", "--plugin", here)
    assert (done.code, done.err) == (143, "plain: stopping\n")


@pytest.mark.parametrize("stage", ["check", "submit", "handle"])
def test_a_fault_is_that_of_the_launcher(
    stage: str, here: str, lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", stage)
    done = lmtasks(*RUN, "--launcher", "pen-and-paper", "--plugin", here)
    assert done.code == 1
    assert f"error: launcher 'pen-and-paper' of {here} failed in its {stage}: ZeroDivisionError: broken {stage} (" in (
        done.err
    )
    assert f"({here}.py, line " in done.err


def test_what_a_launcher_refuses_is_told_as_it_is(here: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks(*RUN, "--launcher", "pen-and-paper", "--pen_and_paper.queue", "none", "--plugin", here)
    assert (done.code, done.err) == (2, "error: there is no queue 'none'\nhint: --pen_and_paper.queue short\n")
    assert not Path("job.json").exists()


def test_options_of_another_launcher_mean_nothing(here: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks(*RUN, "--launcher", "plain", "--pen_and_paper.queue", "long", "--plugin", here)
    assert done.code == 2
    assert done.err.startswith("error: --pen_and_paper.queue means nothing without --launcher pen-and-paper\nhint: add")


def test_launchers_are_shown(here: str, lmtasks: Callable[..., Any]) -> None:
    rows = json.loads(lmtasks("list", "--launchers", "--json", "--plugin", here).out)
    assert {"name": "pen-and-paper", "summary": "Nothing at all.", "owner": here} in rows
    assert any(row["name"] == "torchrun" and row["owner"] == "lmtasks:launchers" for row in rows)
    assert "pen-and-paper, plain" in lmtasks("plugins", "--plugin", here).out
    for name, flag in (("pen-and-paper", "--pen_and_paper.queue"), ("torchrun", "--torchrun.max_restarts")):
        assert flag in lmtasks("run", "masked-lm", "--help", name, "--plugin", here).out
        assert flag in lmtasks("run", "masked-lm", "--help_all", "--plugin", here).out


def launcher(name: str) -> Launcher:
    return Launcher(name=name, summary="None.", submit="nowhere:submit")


def test_a_name_belongs_to_one_package() -> None:
    with (
        pytest.raises(InputError, match="launcher 'torchrun' already belongs to lmtasks:launchers"),
        installed(launchers=[launcher("torchrun")]),
    ):
        pass


def test_an_extension_and_a_launcher_cannot_have_one_name() -> None:
    extension = Extension(name="one-name", summary="None.")
    with (
        pytest.raises(InputError, match="two of its engines, extensions and launchers would have options of one name"),
        installed(launchers=[launcher("one-name")], extensions=[extension]),
    ):
        pass
    told = r"--one_name\.… of its extension 'one-name' is that of the launcher 'one-name'"
    with (
        installed(launchers=[launcher("one-name")]),
        pytest.raises(InputError, match=told),
        installed(extensions=[extension]),
    ):
        pass


@pytest.mark.parametrize("name", ["Upper", "two words", "under_score", ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower case letters"):
        launcher(name)


def test_the_built_in_launcher_is_not_watched() -> None:
    assert not hasattr(load_catalog().launcher("torchrun"), "_owner")


# --- what a process of a launcher calls ---


@pytest.mark.parametrize("code", [0, 2, 130, 143])
def test_after_these_exit_codes_nothing_is_started_again(code: int) -> None:
    assert not Job(command=("run",), cwd=Path.cwd()).may_go_on(code)


def test_after_a_failure_a_run_may_go_on_and_an_evaluation_not() -> None:
    assert Job(command=("run",), cwd=Path.cwd()).may_go_on(3)
    assert not Job(command=("evaluate",), cwd=Path.cwd(), restarts=False).may_go_on(3)


def in_thread(work: Callable[[], int]) -> int:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(work()))
    thread.start()
    thread.join()
    return codes[0]


@pytest.fixture
def job(tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Job:
    """A long run, in a folder where nobody is."""
    for name in ("LMTASKS_JOB", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.setenv(name, "")  # and as it was, in the end
    monkeypatch.chdir(Path.cwd())
    values = {"model": model_folders["roberta"], "train_file": text_file, "block_size": 16, "max_steps": 5000}
    words = [f"--{name}={value}" for name, value in values.items()]
    more = ("--output_dir=out", "--logging_steps=1", "--use_cpu", "--save_steps=10000")
    return Job(command=("run", "masked-lm", *words, *more), cwd=tmp_path, mark="a mark")


def test_a_worker_in_a_thread_is_stopped_by_an_event_and_another_attempt_goes_on(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    stop.set()
    again = pickle.loads(pickle.dumps(job))
    assert in_thread(lambda: package.worker(again, stop)) == 143
    assert len(list((job.cwd / "out" / "checkpoints").glob("checkpoint-*"))) == 1
    assert json.loads((job.cwd / "out" / "run.json").read_text())["job"] == "a mark"
    capsys.readouterr()
    assert in_thread(lambda: package.worker(job, stop)) == 143
    assert "note       goes on after step" in capsys.readouterr().err, "though nobody said --resume_from_checkpoint"


def test_a_worker_of_another_job_does_not_go_on(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    stop = threading.Event()
    stop.set()
    assert in_thread(lambda: package.worker(job, stop)) == 143
    other = Job(command=job.command, cwd=job.cwd, mark="another")
    assert in_thread(lambda: package.worker(other)) == 2
    assert "error: output_dir 'out' holds this run, unfinished" in capsys.readouterr().err


def test_a_worker_on_a_machine_without_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(command=("list",), cwd=Path("/nowhere/at/all"))
    assert package.worker(job) == 2
    told, hint = capsys.readouterr().err.splitlines()
    assert told.startswith("error: '/nowhere/at/all', where the command was given, is no folder of ")
    assert hint == "hint: give the command in a folder that all machines share"
