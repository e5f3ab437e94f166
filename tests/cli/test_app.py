"""The command line: what it tells, what goes where, and that telling costs nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from lmtasks import __version__
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.cli.answers import run_lines
from lmtasks.config.commands import COMMANDS
from lmtasks.config.request import groups_of
from lmtasks.config.training_arguments import OURS, REFUSED
from lmtasks.errors import in_one_line
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.result import Run

HEAVY = ("torch", "transformers", "datasets", "evaluate", "numpy")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with a text in it."""
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A new interpreter that finds this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300, check=False, **options
    )


def flags(recipe: str) -> list[str]:
    """Every flag that the recipe and lmtasks itself declare."""
    groups = groups_of(load_catalog().recipe(recipe))
    options = [option for group in groups.values() for option in group.values() if not option.python_only]
    return [f"--{name}" for option in options for name in (option.name, *option.aliases)]


# --- help ---


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_shows_every_command(words: list[str], lmtasks: Any) -> None:
    from lmtasks.cli.app import COMMANDS

    outcome = lmtasks(*words)
    assert (outcome.code, outcome.err) == (0, "")
    for command in COMMANDS:
        assert f"  lmtasks {command}" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_version(lmtasks: Any) -> None:
    assert lmtasks("--version") == (0, f"lmtasks {__version__}\n", "")


RECIPES = pytest.mark.parametrize("recipe", ["masked-lm", "causal-lm"])
GROUPS = (
    *("processes", "torchrun", "recipe", "data", "model", "adapter"),
    *("output", "batch", "stopping", "loop", "training", "other"),
)


@RECIPES
@pytest.mark.parametrize("words", [("run",), ("data",), ("evaluate", "--recipe")])
def test_help_is_a_screen_with_what_is_typed_most(recipe: str, words: tuple[str, ...], lmtasks: Any) -> None:
    outcome = lmtasks(*words, recipe, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    common = ["--model", "--train_file", "--block_size", "--config"]
    common += ["--output_dir", "--learning_rate", "--use_peft", "--dry_run"] if words == ("run",) else []
    common += ["--mlm_probability"] if (recipe, words[0]) == ("masked-lm", "run") else []
    assert [flag for flag in common if flag not in outcome.out.split()] == []
    assert "--help GROUP" in outcome.out
    assert "--help_all" in outcome.out


@RECIPES
def test_help_of_a_group_has_all_its_flags(recipe: str, lmtasks: Any) -> None:
    outcomes = [lmtasks("run", recipe, "--help", group) for group in GROUPS]
    assert {(outcome.code, outcome.err) for outcome in outcomes} == {(0, "")}
    shown = "".join(outcome.out for outcome in outcomes)
    words = shown.replace(",", " ").split()
    assert [flag for flag in [*flags(recipe), "--config", "--json", "--help", "--help_all"] if flag not in words] == []
    assert max(map(len, shown.splitlines())) <= 80
    assert "==SUPPRESS==" not in shown
    assert "train_dataset" not in shown, "only Python can hold it"
    for group, outcome in zip(GROUPS, outcomes, strict=True):
        titles = [f"launcher {group}" if group == "torchrun" else group]
        assert re.findall(r"^(\S.*):$", outcome.out, re.MULTILINE) == titles


def test_help_of_no_such_group(lmtasks: Any) -> None:
    outcome = lmtasks("run", "masked-lm", "--help", "trainig")
    assert (outcome.code, outcome.out) == (2, "")
    error, hint = outcome.err.splitlines()
    assert error == "error: --help knows no group 'trainig', did you mean 'training'?"
    assert hint == f"hint: --help {' | '.join(GROUPS)}"


@pytest.mark.parametrize("spelling", ["--help-all", "--help_all"])
def test_help_all_has_every_field_of_training_arguments_that_is_not_refused(spelling: str, lmtasks: Any) -> None:
    outcome = lmtasks("run", "masked-lm", spelling)
    assert (outcome.code, outcome.err) == (0, "")
    words = outcome.out.replace(",", " ").split()
    assert [flag for flag in flags("masked-lm") if flag not in words] == []
    fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments) if field.init}
    assert [name for name in sorted(fields - REFUSED.keys()) if f"--{name}" not in words] == []
    assert [name for name in REFUSED if f"--{name}" in words] == []
    assert len(fields) > 80
    assert set(OURS) <= fields


@pytest.mark.parametrize(
    "command", ["run", "predict", "evaluate", "push", "list", "show", "schema", "plugins", "doctor"]
)
def test_every_command_has_help(command: str, lmtasks: Any) -> None:
    outcome = lmtasks(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: lmtasks {command}")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_usage_fits_a_terminal_of_80_columns(command: str, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = lmtasks(command, "--help").out
    assert max(map(len, told.partition("\n\n")[0].splitlines())) <= 80


@pytest.mark.parametrize("trains", [True, False])
def test_what_is_said_of_data_and_of_a_model_fits_a_terminal_of_80_columns(
    trains: bool,
    model_folders: dict[str, Path],
    text_file: Path,
    tmp_path: Path,
    lmtasks: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the text of examples has lines of its own. Without a terminal each thing that is said is a line."""
    model = str(model_folders["roberta"])
    words = ["data", "masked-lm", "--model", model, "--train_file", str(text_file), "--examples", "1"]
    if not trains:
        words = ["evaluate", model, "--validation_file", str(text_file), "--block_size", "16"]
    monkeypatch.chdir(tmp_path)
    lines = lmtasks(*words).out.splitlines()
    monkeypatch.setenv("COLUMNS", "80")
    fitted = lmtasks(*words).out.splitlines()
    assert max(len(line) for line in fitted if not line.startswith("  | ") and str(text_file) not in line) <= 80
    assert max(map(len, lines)) > 80 and len(fitted) > len(lines)
    assert " ".join(fitted).split() == " ".join(lines).split()


def test_help_of_evaluate_has_the_flags_of_a_recipe(lmtasks: Any) -> None:
    assert "--eval_mlm_probability" in lmtasks("evaluate", "--help_all", "--recipe", "masked-lm").out
    causal = lmtasks("evaluate", "--help_all", "--recipe", "causal-lm").out
    assert "--eval_mlm_probability" not in causal
    assert "--validation_file" in causal
    assert "--learning_rate" not in causal
    assert "--max_train_samples" not in causal, "only training uses it"


# --- telling ---


def test_list_is_a_line_a_recipe(lmtasks: Any) -> None:
    outcome = lmtasks("list")
    assert outcome.code == 0
    recipes = load_catalog().recipes
    assert [line.split(None, 1) for line in outcome.out.splitlines()] == [[r.name, r.summary] for r in recipes.values()]


def test_list_as_json(lmtasks: Any) -> None:
    outcome = lmtasks("list", "--json")
    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert list(rows) == list(load_catalog().recipes)
    assert rows["masked-lm"]["owner"] == "lmtasks:masked-lm"
    assert rows["masked-lm"]["summary"] == load_catalog().recipe("masked-lm").summary


def test_show_has_every_option_with_its_help(lmtasks: Any) -> None:
    outcome = lmtasks("show", "masked-lm")
    assert (outcome.code, outcome.err) == (0, "")
    for name, option in groups_of(load_catalog().recipe("masked-lm"))["options"].items():
        assert f"--{name}" in outcome.out
        assert option.help in outcome.out
    assert "fill-mask" in outcome.out
    assert "lmtasks run masked-lm" in outcome.out


def test_show_as_json(lmtasks: Any) -> None:
    shown = json.loads(lmtasks("show", "causal-lm", "--json").out)
    assert shown["name"] == "causal-lm"
    assert shown["model_class"] == "transformers:AutoModelForCausalLM"
    assert shown["attention"] == "causal"
    assert {option["name"]: option["default"] for option in shown["options"]} == {
        "block_size": 128,
        "line_by_line": False,
        "isolate_documents": False,
        "stride": None,
    }


def test_plugins_tells_what_each_brings(lmtasks: Any) -> None:
    outcome = lmtasks("plugins")
    assert outcome.code == 0
    assert f"lmtasks:masked-lm {__version__}: masked-lm" in outcome.out.splitlines()


def test_plugins_as_json(lmtasks: Any) -> None:
    rows = {row["name"]: row for row in json.loads(lmtasks("plugins", "--json").out)}
    assert rows["lmtasks:causal-lm"]["recipes"] == ["causal-lm"]
    assert rows["lmtasks:causal-lm"]["version"] == __version__
    assert rows["lmtasks:causal-lm"]["broken"] == ""


# --- a run ---


def test_a_run_tells_its_figures_on_stdout_and_its_plan_on_stderr(
    here: Path, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    words = ["--model", model_folders["roberta"], "--train-file", "text.txt", "--block-size=16", "--max_steps", "1"]
    outcome = lmtasks("run", "masked-lm", *words, "--output_dir", "out")
    assert outcome.code == 0, outcome.err
    results = json.loads(Path("out/eval_results.json").read_text())
    figures = dict(line.split(None, 1) for line in outcome.out.splitlines()[:2])
    assert figures["loss"].startswith(f"{results['eval_loss']:.4f} nats per target")
    assert figures["perplexity"].startswith(f"{results['perplexity']:.2f} (masked-token perplexity")
    assert '  lmtasks predict out "' in outcome.out
    above = results["eval_loss"] - results["unigram_loss"]
    assert f"\nverdict\n  {above:.2f} nats ABOVE the unigram baseline of {results['unigram_loss']:.2f}" in outcome.out
    assert "\ntry next\n  the same command with --max_steps 3\n" in outcome.out
    assert "lmtasks push" not in outcome.out, "nobody wants what guessing does better"
    assert "recipe     masked-lm" in outcome.err
    assert re.search(r"^\w+ +out$", outcome.err, re.MULTILINE), "where it goes"
    assert "Warning" not in outcome.err
    assert "recipe     masked-lm" not in outcome.out


def test_a_run_whose_model_cannot_answer_is_done_all_the_same(here: Path, lmtasks: Any, text_file: Path) -> None:
    """One layer of this model is a convolution, and transformers generates with none but attention's cache."""
    words = ("--config_overrides", "num_hidden_layers=1", "--train_tokenizer", 400, "--train_file", text_file)
    done = lmtasks("run", "causal-lm", *words, "--block_size", 16, "--max_steps", 2, "--output_dir", "out")
    assert done.code == 0
    assert "error:" not in done.err
    assert "predictions\n  none: text-generation: " in done.out
    assert "\nverdict\n" in done.out
    assert json.loads(Path("out/run.json").read_text())["status"] == "done"


def test_a_run_below_the_baseline_may_be_pushed() -> None:
    verdict = {"sentences": ["0.68 nats under the unigram baseline"], "flags": "", "publishable": True}
    record = {"perplexity_label": "perplexity", "example": "it is", "verdict": verdict}
    done = Run.of(CAUSAL_LM, Path("out"), record, {"eval_loss": 1.0, "eval_targets": 3})
    assert list(run_lines(done)) == [
        "loss           1.0000 nats per target",
        "targets        3",
        "\nverdict",
        "  0.68 nats under the unigram baseline",
        "\ntry next",
        "  open out/report.html in a browser",
        '  lmtasks predict out "it is"',
        "  lmtasks evaluate out --validation_file FILE",
        "  lmtasks push out USER/NAME",
    ]


def test_json_of_a_run_is_all_of_stdout(here: Path, lmtasks: Any, model_folders: dict[str, Path]) -> None:
    words = ["--model", model_folders["gpt2"], "--train_file", "text.txt", "--block_size", "16", "--max_steps", "1"]
    outcome = lmtasks("run", "causal-lm", *words, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert set(told) == {"output_dir", "url", "metrics"}
    assert told["output_dir"] == "runs/causal-lm"
    assert told["url"] is None
    assert told["metrics"] == json.loads(Path("runs/causal-lm/all_results.json").read_text())
    assert "recipe     causal-lm" in outcome.err


def test_hyphens_and_underscores_mean_the_same(here: Path, lmtasks: Any, model_folders: dict[str, Path]) -> None:
    values = ["text.txt", "16", str(model_folders["gpt2"]), "3"]
    plans = []
    for names in (
        ["--train-file", "--block-size", "--model-name-or-path", "--per-device-train-batch-size", "--dry-run"],
        ["--train_file", "--block_size", "--model_name_or_path", "--per_device_train_batch_size", "--dry_run"],
        ["--train-file", "--max-seq-length", "--model", "--per_device-train_batch-size", "--dry-run=true"],
    ):
        words = [word for pair in zip(names, values, strict=False) for word in pair]
        outcome = lmtasks("run", "causal-lm", *words, names[-1], "--json")
        assert outcome.code == 0, outcome.err
        plans.append(json.loads(outcome.out))
    assert plans[0]["batch"] == 3
    assert plans[0] == plans[1] == plans[2]


def test_flags_win_over_the_yaml_file_under_any_of_their_names(
    here: Path, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    settings = {"model": "./gone", "train-file": ["text.txt"], "max_seq_length": 32, "learning_rate": 1e-4}
    Path("run.yaml").write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items()))
    words = ["--config", "run.yaml", "--model_name_or_path", model_folders["gpt2"], "--block_size", "16"]
    outcome = lmtasks("run", "causal-lm", *words, "--dry_run", "--json")
    assert outcome.code == 0, outcome.err
    plan = json.loads(outcome.out)
    assert (plan["block_size"], plan["learning_rate"], plan["model"]) == (16, 1e-4, str(model_folders["gpt2"]))


# --- using a model ---

MASKED_TEXTS = ["The <mask> returns.", "A [MASK] of strings."]


def pipeline_answers(folder: Path, task: str, texts: list[str], **arguments: Any) -> Any:
    answers = transformers.pipeline(task, model=str(folder))(texts, **arguments)
    return json.loads(json.dumps(answers))


def test_predict_as_json_is_the_pipelines_own_structure(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    outcome = lmtasks("predict", model_folders["bert"], *MASKED_TEXTS, "--top_k", 2, "--json")
    assert outcome.code == 0, outcome.err
    texts = [text.replace("[MASK]", "<mask>") for text in MASKED_TEXTS]
    told, expected = json.loads(outcome.out), pipeline_answers(model_folders["bert"], "fill-mask", texts, top_k=2)
    for line, row in zip(told, expected, strict=True):
        assert [guess["token"] for guess in line] == [guess["token"] for guess in row]
        assert [guess["score"] for guess in line] == pytest.approx([guess["score"] for guess in row], rel=1e-4)
        assert line[0].keys() == row[0].keys()


def test_predict_continues_a_text_as_the_pipeline_does(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    words = ["--max_new_tokens", 4, "--do_sample", "false", "--json"]
    outcome = lmtasks("predict", model_folders["llama"], "Return a", *words)
    assert outcome.code == 0, outcome.err
    expected = pipeline_answers(
        model_folders["llama"], "text-generation", ["Return a"], max_new_tokens=4, do_sample=False
    )
    assert json.loads(outcome.out) == expected


def test_predict_for_people_has_a_line_a_guess(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    one = lmtasks("predict", model_folders["bert"], MASKED_TEXTS[0], "--top_k", 3)
    lines = one.out.splitlines()
    assert len(lines) == 3
    assert all("%" in line and "returns." in line for line in lines)
    several = lmtasks("predict", model_folders["bert"], *MASKED_TEXTS, "--top_k", 1)
    texts = several.out.splitlines()
    assert [texts[0], texts[2]] == MASKED_TEXTS
    assert texts[1].startswith("  ")
    assert several.err == ""


def test_predict_reads_texts_from_files_and_standard_input(
    here: Path, lmtasks: Any, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["predict", model_folders["bert"], "--top_k", 2, "--json"]
    typed = json.loads(lmtasks(*words, *MASKED_TEXTS).out)
    lines = "\n".join(["", *MASKED_TEXTS, "  ", ""])
    Path("texts.txt").write_text(lines)
    assert json.loads(lmtasks(*words, "--file", "texts.txt").out) == typed
    for more in ([], ["--file", "-"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="ascii"))
        assert json.loads(lmtasks(*words, *more).out) == typed


def test_predict_of_one_line_of_a_file_is_a_list_of_one(
    here: Path, lmtasks: Any, model_folders: dict[str, Path]
) -> None:
    Path("text.txt").write_text("Return a\n")
    words = ["--max_new_tokens", 2, "--json"]
    told = json.loads(lmtasks("predict", model_folders["gpt2"], "--file", "text.txt", *words).out)
    assert len(told) == 1
    assert told[0][0]["generated_text"].startswith("Return a")


def test_evaluate_as_json_and_for_people(here: Path, lmtasks: Any, model_folders: dict[str, Path]) -> None:
    words = ["evaluate", model_folders["gpt2"], "--validation-file", "text.txt", "--block_size", 16]
    figures = json.loads(lmtasks(*words, "--json").out)
    people = lmtasks(*words)
    assert people.code == 0, people.err
    lines = dict(line.split(None, 1) for line in people.out.splitlines())
    assert lines["loss"].startswith(f"{figures['eval_loss']:.4f} nats per target")
    assert lines["perplexity"] == f"{figures['perplexity']:.2f}"
    assert lines["targets"] == f"{figures['eval_targets']:,}"
    assert lines["accuracy"] == f"{figures['accuracy']:.1%}"


# --- processes ---


def test_the_package_runs_as_a_module() -> None:
    done = python("-m", "lmtasks", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["name"] for row in json.loads(done.stdout)] == list(load_catalog().recipes)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_heard_enough_is_no_error(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lmtasks", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_control_c_ends_with_one_line_and_130(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    os.mkfifo(texts)
    process = subprocess.Popen(
        [sys.executable, "-m", "lmtasks", "predict", "model", "--file", str(texts)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    # Opening for writing waits until the command has opened for reading, so it is reading now.
    with texts.open("w"):
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Install a module as a plugin; gives the environment in which it is found."""

    def install(code: str) -> dict[str, str]:
        (tmp_path / "strange_plugin.py").write_text(textwrap.dedent(code))
        about = tmp_path / "strange_plugin-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-plugin\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text("[lmtasks]\nstrange = strange_plugin\n")
        return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}

    return install


def test_a_bug_keeps_its_traceback_and_exits_1(plugin: Callable[[str], dict[str, str]]) -> None:
    environment = plugin(
        """
        from dataclasses import dataclass, replace

        from lmtasks import hookimpl, option
        from lmtasks.builtin.causal_lm import CAUSAL_LM

        class Odd:
            def __str__(self):
                return str(1 / 0)

        @dataclass(frozen=True, kw_only=True)
        class Options:
            odd: str = option(Odd(), help="something odd")

        @hookimpl
        def lmtasks_recipes():
            return [replace(CAUSAL_LM, name="odd", options=Options)]
        """
    )
    done = python("-m", "lmtasks", "show", "odd", env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_broken_plugin_is_named_and_stops_nobody(plugin: Callable[[str], dict[str, str]]) -> None:
    environment = plugin("import no_such_module_anywhere")
    done = python("-m", "lmtasks", "list", env=environment)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(load_catalog().recipes)
    reason = "ModuleNotFoundError: No module named 'no_such_module_anywhere' (strange_plugin.py, line 1)"
    assert done.stderr == f"warning: strange-plugin:strange 1.2 is broken: {reason}\n"
    told = python("-m", "lmtasks", "plugins", env=environment)
    assert f"strange-plugin:strange 1.2: BROKEN: {reason}" in told.stdout.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "--json"],
        ["show", "masked-lm"],
        ["show", "causal-lm", "--json"],
        ["plugins"],
        ["--no_plugins", "list"],
        ["list", "--plugin", "lmtasks.builtin.masked_lm"],
        ["show", "lmtasks:masked-lm"],
        ["schema", "--help"],
        ["doctor", "--help"],
        ["run"],
        ["run", "--help"],
        ["run", "masked-lm", "--help"],
        ["data", "masked-lm", "--help"],
        ["predict", "--help"],
        ["evaluate", "--help"],
        ["push", "--help"],
        ["trian"],
        ["run", "no-such-recipe"],
        ["predict", "model", "--file", "/dev/null"],
    ],
    ids=" ".join,
)
def test_a_command_that_only_tells_imports_nothing_heavy(words: list[str]) -> None:
    code = f"""
        import sys
        from lmtasks.cli import main
        try:
            main({words!r})
        except SystemExit:
            pass
        print("imported", *(name for name in {HEAVY!r} if name in sys.modules))
    """
    done = python("-W", "error", "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"


def test_import_lmtasks_imports_nothing_heavy() -> None:
    code = f"import lmtasks, sys; dir(lmtasks); lmtasks.recipes(); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = python("-W", "error", "-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_module_imports_on_its_own() -> None:
    """In one process, as the libraries take seconds: only lmtasks' own modules are forgotten in between."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "lmtasks").rglob("*.py")
        if path.name != "__main__.py"
    )
    if not importlib.util.find_spec("gradio"):  # the page's library is heavy; tests/browser has it
        modules.remove("lmtasks.serving.page")
    assert len(modules) > 30
    code = f"""
        import importlib, sys, warnings
        import accelerate, datasets, evaluate, msgspec, torch, transformers, yaml
        from transformers import Trainer, pipeline
        warnings.simplefilter("error")
        for module in {modules!r}:
            for name in [name for name in sys.modules if name.partition(".")[0] == "lmtasks"]:
                del sys.modules[name]
            importlib.import_module(module)
            print(module)
    """
    done = python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == modules


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb.txt", "file: a?b.txt"), ("x" * 5000, "--train_file 'xxx"), ("a\udcff.txt", "file: a?.txt")],
)
def test_an_error_is_one_line_whatever_a_file_is_called(name: str, shown: str, lmtasks: Any) -> None:
    outcome = lmtasks("run", "masked-lm", "--train_file", name)
    assert outcome.code == 2
    errors = [line for line in outcome.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert shown in errors[0] and len(errors) == 2
    assert max(map(len, outcome.err.splitlines())) < 1100


def test_a_long_message_is_cut_in_the_middle() -> None:
    line = in_one_line("begin " + "x" * 10_000 + "\nend")
    assert line.startswith("begin x") and line.endswith("x end") and len(line) < 1000
