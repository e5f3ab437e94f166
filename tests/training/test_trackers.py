"""Trackers behind --report_to: what they stored is read back. Each is skipped where it is not installed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from lmtasks.errors import InputError, RunError
from lmtasks.training.trackers import Tracker, open_until_done

SECRET = "hf_thisIsASecretOfTheSuite0123456789"


class Stored:
    """What a tracker has of one run.

    Args:
        figures: by name, as [(step, value)].
        options: of the run; each value under the last part of its name.
    """

    def __init__(self, figures: dict[str, list[tuple[int, float]]], options: dict[str, Any], raw: bytes) -> None:
        self.figures, self.options, self.raw = figures, options, raw


def of_tensorboard(place: Path) -> Stored:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in place.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder)).Reload()
    figures = {
        name.replace("eval/", "eval_"): [(one.step, one.value) for one in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    (text,) = events.Tensors("lmtasks/text_summary")
    said = text.tensor_proto.string_val[0].decode().removeprefix("```json\n").removesuffix("\n```")
    return Stored(figures, json.loads(said), b"".join(path.read_bytes() for path in folder.iterdir()))


def records_of(path: Path) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, as wandb has it: behind 7 bytes, in blocks of 32 KiB."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield whole
            whole = b""


def of_wandb(place: Path) -> Stored:
    from wandb.proto import wandb_internal_pb2

    (path,) = place.rglob("*.wandb")
    figures: dict[str, list[tuple[int, float]]] = {}
    config: dict[str, Any] = {}
    ended = None
    for data in records_of(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            row = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                figures.setdefault(name.replace("eval/", "eval_"), []).append((row["train/global_step"], value))
        for part in (record.config, record.run.config):
            config |= {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in part.update}
        ended = record.exit.exit_code if record.HasField("exit") else ended
    assert ended == 0
    return Stored(figures, config["lmtasks"], path.read_bytes())


def of_trackio(place: Path) -> Stored:
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("huggingface")
    figures: dict[str, list[tuple[int, float]]] = {}
    for row in SQLiteStorage.get_logs("huggingface", run):
        for name, value in row.items():
            if "train/global_step" in row:
                figures.setdefault(name.replace("eval/", "eval_"), []).append((row["train/global_step"], value))
    config = SQLiteStorage.get_run_config("huggingface", run)
    return Stored(figures, config["lmtasks"], b"".join(path.read_bytes() for path in place.rglob("*.db")))


def of_mlflow(place: Path) -> Stored:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.info.status == "FINISHED"
    figures = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    options: dict[str, Any] = {}
    for name, value in run.data.params.items():
        if name.startswith("lmtasks/"):
            *groups, last = name.removeprefix("lmtasks/").split("/")
            (options.setdefault(groups[0], {}) if groups else options)[last] = value
    return Stored(figures, options, (place / "mlflow.db").read_bytes())


TRACKERS: dict[str, Callable[[Path], Stored]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "trackio": of_trackio,
    "mlflow": of_mlflow,
}


def environment(place: Path) -> dict[str, str]:
    """Everything stays here: nothing is sent, and nothing is looked for elsewhere."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(place),
        "WANDB_SILENT": "true",
        "TRACKIO_DIR": str(place / "trackio"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
        "HF_TOKEN": SECRET,
        "WANDB_API_KEY": "local-" + "0123456789abcdef" * 3,
    }


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.filterwarnings("default")  # those of the trackers
def test_what_a_tracker_stored_is_what_the_run_says(
    name: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment(tmp_path).items():
        monkeypatch.setenv(variable, value)  # which some read when they are imported
    pytest.importorskip(name)
    flags = ["--train_file", str(text_file), "--output_dir", "out", "--max_steps", "4", "--logging_steps", "2"]
    sets = ["--validation_file", f"first={text_file}", f"second={text_file}", "--max_eval_samples", "2"]
    small = ["--config_overrides", "num_hidden_layers=1,hidden_size=32,num_attention_heads=2", "--block_size", "32"]
    command = [sys.executable, "-m", "lmtasks", "run", "causal-lm", *flags, *small, "--report_to", name, "--json"]
    held = tmp_path / "held.txt"
    held.write_text(text_file.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    sets = ["--validation_file", f"first={held}", f"second={held}", "--max_eval_samples", "2"]
    evaluating = ["--eval_strategy", "steps", "--eval_steps", "2"]
    done = subprocess.run([*command, *sets, *evaluating], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["metrics"]  # whatever the tracker printed is not there
    stored = TRACKERS[name](tmp_path)

    for figure in ("eval_loss", "eval_first_loss", "eval_second_loss", "eval_first_perplexity"):
        assert stored.figures[figure][-1] == (4, pytest.approx(told[figure], rel=1e-6)), figure
    for figure in ("perplexity", "bits_per_byte", "accuracy", "unigram_loss"):
        assert stored.figures[f"eval_{figure}"][-1] == (4, pytest.approx(told[figure], rel=1e-6)), figure
    assert {step for step, _ in stored.figures["eval_bits_per_byte"]} == {2, 4}, "during training, too"
    assert not [figure for figure in stored.figures if figure.startswith("train/perplexity")]

    assert stored.options["recipe"] == "causal-lm"
    assert str(stored.options["options"]["block_size"]) == "32"
    assert "held.txt" in str(stored.options["settings"]["validation_file"])
    assert str(tmp_path) not in json.dumps(stored.options), "a path of this machine"
    assert SECRET.encode() not in stored.raw
    assert b"0123456789abcdef0123456789abcdef" not in stored.raw


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
@pytest.mark.filterwarnings("default")
def test_two_runs_of_one_process_are_two_runs_of_the_tracker(name: str, text_file: Path, tmp_path: Path) -> None:
    pytest.importorskip(name)
    code = (
        "import lmtasks\nfor out in ('one', 'two'):\n"
        f"    lmtasks.run('causal-lm', train_file=[{str(text_file)!r}], output_dir=out, max_steps=1, block_size=32,\n"
        f"                max_eval_samples=1, report_to={name!r})\n"
    )
    known = {**os.environ, **environment(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=known)
    assert done.returncode == 0, done.stderr
    if name == "wandb":
        assert len(list(tmp_path.rglob("*.wandb"))) == 2
    elif name == "mlflow":
        from mlflow import MlflowClient

        assert len(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])) == 2
    else:
        import sqlite3

        with sqlite3.connect(next((tmp_path / "trackio").glob("*.db"))) as database:
            assert database.execute("select count(distinct run_name) from metrics").fetchone() == (2,)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.filterwarnings("default")
def test_a_run_that_failed_is_one_there_too(name: str, text_file: Path, tmp_path: Path) -> None:
    pytest.importorskip(name)
    code = (
        "import sys\nfrom lmtasks.cli import main\nfrom lmtasks.errors import RunError\n"
        "from lmtasks.runs import execute\n"
        "def fail(*_):\n    raise RunError('the evaluation failed')\n"
        "execute.figures_of = fail\nsys.exit(main())"
    )
    flags = ["--train_file", str(text_file), "--output_dir", "out", "--max_steps", "1", "--report_to", name]
    command = [sys.executable, "-c", code, "run", "causal-lm", *flags]
    known = {**os.environ, **environment(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=known)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, "error: the evaluation failed"), done.stderr
    if name == "mlflow":
        from mlflow import MlflowClient

        (run,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])
        assert run.info.status == "FAILED"
    else:
        from wandb.proto import wandb_internal_pb2

        (path,) = tmp_path.rglob("*.wandb")
        records = [wandb_internal_pb2.Record.FromString(one) for one in records_of(path)]
        assert [one.exit.exit_code for one in records if one.HasField("exit")] == [3]


@pytest.mark.filterwarnings("default")
def test_a_tracker_that_is_not_set_up_is_told_in_two_lines(text_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    flags = ["--train_file", str(text_file), "--output_dir", "out", "--max_steps", "1", "--report_to", "wandb"]
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    known |= {"HOME": str(tmp_path), "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    command = [sys.executable, "-m", "lmtasks", "run", "causal-lm", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=known, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: --report_to wandb: ")
    assert done.stderr.splitlines()[-1] == "hint: set wandb up, or leave it out of --report_to"


# --- without any tracker installed ---


class Notebook(TrainerCallback):
    """A tracker that notes what it hears."""

    heard: list[tuple[str, Any]] = []  # noqa: RUF012

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        print("welcome to my service")
        self.heard.append(("begin", state.max_steps))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
        self.heard.append(("log", dict(logs)))

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.heard.append(("end", state.global_step))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> type[Notebook]:
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "notebook", Notebook)
    available = "lmtasks.config.training_arguments.get_available_reporting_integrations"
    monkeypatch.setattr(available, lambda: ["notebook"])
    monkeypatch.setattr(Notebook, "heard", [])
    return Notebook


def test_a_tracker_is_open_until_the_last_figure(
    notebook: type[Notebook], lmtasks: Any, text_file: Path, tmp_path: Path
) -> None:
    flags = ("--train_file", text_file, "--output_dir", tmp_path / "out", "--max_steps", 2, "--max_eval_samples", 2)
    done = lmtasks("run", "causal-lm", *flags, "--report_to", "notebook", "--json")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert "welcome to my service" in done.err
    assert [event for event, _ in notebook.heard].count("begin") == 1
    (_, last), end = notebook.heard[-2:]
    assert end == ("end", 2)
    assert last["eval_bits_per_byte"] == metrics["bits_per_byte"]
    assert last["eval_loss"] == metrics["eval_loss"]
    assert all(name.startswith("eval_") for name in last)


def test_a_tracker_that_fails_is_named_and_the_others_are_closed(notebook: type[Notebook]) -> None:
    class Failing(Notebook):
        def on_log(self, *arguments: Any, **named: Any) -> None:
            raise ConnectionError("no such host\nat all")

    class State:
        max_steps = global_step = 1
        is_world_process_zero = True

    INTEGRATION_TO_CALLBACK["notebook"] = Failing
    trackers = [Tracker("notebook", {}) for _ in range(2)]
    for tracker in trackers:
        tracker.on_train_begin(None, State(), None)
    with pytest.raises(RunError, match="--report_to notebook: no such host"), open_until_done(trackers) as tell:
        tell({"eval_loss": 1.0})
    with open_until_done(trackers) as tell:
        tell({"eval_loss": 1.0})  # closed ones hear nothing
    with pytest.raises(InputError, match="stays"), open_until_done([]):
        raise InputError("what ended the run stays")
