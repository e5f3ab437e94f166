"""The documentation is true: its commands run, its code runs, its tables are complete, its links lead somewhere.

Commands and code are run as they are written, page by page, in an empty folder. Where a page names something on
the Hub, a small stand-in of the same kind lies in that folder under the same name. Only two things are added, for
speed: a command that trains stops after two steps, and evaluates on eight blocks. What serves does so until the page is
read, at a port that is free, and its address is replaced in what comes after it.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytest
import transformers
from hub_server import HubServer
from launched import first_document, free_port

import lmtasks as package
from lmtasks import testing
from lmtasks.api import Option, hookspecs, options_of
from lmtasks.artifacts import run_folder as folder
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.launchers import TORCHRUN
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.app import COMMANDS
from lmtasks.cli.launching import DEFAULT, FLAGS
from lmtasks.config.elsewhere import ENGINES
from lmtasks.config.request import ALWAYS
from lmtasks.config.settings import (
    AdapterSettings,
    BatchSettings,
    DataSettings,
    LoopSettings,
    ModelSettings,
    OutputSettings,
    StoppingSettings,
    TrainingSettings,
)
from lmtasks.config.training_arguments import REFUSED, training_options
from lmtasks.errors import InputError, Interrupted, LmtasksError, RunError
from lmtasks.registry.catalog import LAUNCHERS
from lmtasks.testing import check_architecture, check_engine, check_recipe, checks, fixtures

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")])
LANGUAGES = ("ar", "ja", "ko", "zh")
"""Those that the tutorial is told in, beside English."""

SETTINGS = (
    DataSettings,
    ModelSettings,
    AdapterSettings,
    OutputSettings,
    BatchSettings,
    StoppingSettings,
    LoopSettings,
    TrainingSettings,
)
SETUP = (
    "python -m venv .venv && . .venv/bin/activate && pip install . -c constraints.txt && lmtasks run masked-lm",
    "pip install tox && tox run -e py",
)
"""The two commands for a fresh machine, as the README must have them."""

FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; one with a title is a file."""

    language: str
    title: str | None
    text: str
    line: int


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], match[3], text[: match.start()].count("\n") + 2) for match in FENCE.finditer(text)
    ]


def _commands(block: Block) -> list[str]:
    """The commands of a shell block, those over several lines as one."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def _section(page: Path, heading: str) -> str:
    """The text below a heading, up to the next one of the same or a higher level."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"{page.name} has no heading '{heading}'"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def _rows(text: str) -> dict[str, list[str]]:
    """Table rows by the name in their first cell, ``--`` taken off."""
    rows = [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    return {names[0].removeprefix("--"): row for row in rows if (names := re.findall(r"`([^`]+)`", row[0]))}


# --- commands and code ---


class Reader:
    """Somebody who does what a page says, in an empty folder with the files that the page takes for granted."""

    def __init__(self, page: Path, place: Path, lmtasks: Callable[..., Any], patch: pytest.MonkeyPatch) -> None:
        self.page, self.place, self.lmtasks, self.patch = page, place, lmtasks, patch
        self.module = types.ModuleType(f"page_{page.stem.lower()}")
        patch.setitem(sys.modules, self.module.__name__, self.module)
        patch.chdir(place)
        self.ran = 0
        self.servers: list[subprocess.Popen[str]] = []
        self.addresses: dict[str, str] = {}

    def read(self) -> None:
        try:
            self._read()
        finally:
            for server in self.servers:
                server.kill()
                server.communicate()

    def _read(self) -> None:
        for block in _blocks(self.page):
            if block.title:
                self.write(block)
            elif block.language == "python":
                text = self.addressed(block.text)
                code = compile("\n" * (block.line - 1) + text, str(self.page), "exec", dont_inherit=True)
                exec(code, vars(self.module))
            elif block.language == "bash":
                for command in _commands(block):
                    self.execute(command)
            else:
                assert block.language in ("text", "json"), f"{self.page.name}:{block.line} is of no known kind"

    def write(self, block: Block) -> None:
        path = self.place / str(block.title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def execute(self, command: str) -> None:
        words = shlex.split(command, comments=True)
        if words[:2] == ["pip", "install"] and words[-1].startswith("./"):
            self.install(self.place / words[-1])
        elif words[0] == "pytest":
            done = subprocess.run([sys.executable, "-m", *words, "-q"], cwd=self.place, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            self.ran += 1
        elif words[:2] in (["lmtasks", "serve"], ["lmtasks", "demo"]):
            self.serve(words)
            self.ran += 1
        elif words[0] == "curl":
            asked = ["bash", "-c", f"{self.addressed(command)} --fail --silent"]
            assert json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
        elif words[0] == "lmtasks":
            done = self.lmtasks(*words[1:], *_short(words[1:]))
            assert done.code == 0, f"{command}\n{done.err}"
            self.ran += 1
        elif words[0] == "torchrun":
            # A fixed port, as in launched.py.
            launcher = ["-m", "torch.distributed.run", "--master_port", str(free_port())]
            asked = words[words.index("lmtasks") + 1 :]
            command_line = [sys.executable, *launcher, *words[1:], *_short(asked)]
            done = subprocess.run(command_line, cwd=self.place, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            self.ran += 1
        elif words[0] == "printf":
            subprocess.run(["bash", "-c", command], cwd=self.place, check=True)
        elif command in SETUP:
            # What sets up the machine is compared with the project's files; what then runs is run.
            *_, last = command.split(" && ")
            if last.startswith("lmtasks"):
                self.execute(last)
        else:
            assert words[:3] == ["hf", "auth", "login"], f"nobody tests: {command}"

    def serve(self, words: list[str]) -> None:
        """Start a server. Gradio is heavy: where it is not installed, all that can be read is how to get it."""
        if words[1] == "demo" and importlib.util.find_spec("gradio") is None:
            done = self.lmtasks(*words[1:])
            assert done.code == 2 and "pip install 'lmtasks[demo]'" in done.err
            return
        command = [sys.executable, "-m", *words, "--port", "0", "--json"]
        server = subprocess.Popen(command, cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.servers.append(server)
        written = f"http://127.0.0.1:{8000 if words[1] == 'serve' else 7860}"
        self.addresses[written] = first_document(server)["url"]

    def addressed(self, text: str) -> str:
        """A text with the addresses at which the servers really are."""
        for written, real in self.addresses.items():
            text = text.replace(written, real)
        return text

    def install(self, project: Path) -> None:
        """What pip would leave behind: the module on the path, and a folder that says which entry points it has."""
        declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        site = self.place / "site-packages"
        for source in (path for path in project.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()):
            (shutil.copytree if source.is_dir() else shutil.copy)(source, _made(site) / source.name)
        info = _made(site / f"{declared['name'].replace('-', '_')}-{declared['version']}.dist-info")
        (info / "METADATA").write_text(f"Name: {declared['name']}\nVersion: {declared['version']}\n")
        lines = [f"{name} = {module}" for name, module in declared["entry-points"]["lmtasks"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[lmtasks]", *lines, ""]))
        if str(site) not in sys.path:
            self.patch.syspath_prepend(str(site))
        importlib.invalidate_caches()


def _made(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    return place


def _short(words: list[str]) -> list[str]:
    """Flags that shorten a run, and change nothing else."""
    if words[0] != "run" or "--dry_run" in words:
        return []
    return ["--max_eval_samples", "8", *([] if "--max_steps" in words else ["--max_steps", "2"])]


@pytest.fixture
def place(
    tmp_path: Path,
    documents: list[str],
    text_file: Path,
    model_folders: dict[str, Path],
    causal_tokenizer: transformers.PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """A folder with a text or two, and small stand-ins under the names that the pages' models and data have."""
    place = _made(tmp_path / "place")
    shutil.copy(text_file, place / "notes.txt")
    (place / "held-out.txt").write_text("\n".join(documents[40:50]), encoding="utf-8")
    shutil.copytree(model_folders["roberta"], place / "distilbert" / "distilroberta-base")
    end = causal_tokenizer.eos_token_id
    config = transformers.GPT2Config(
        vocab_size=400, n_positions=256, n_embd=32, n_layer=2, n_head=2, bos_token_id=end, eos_token_id=end
    )
    for part in (transformers.GPT2LMHeadModel(config), causal_tokenizer):
        part.save_pretrained(place / "distilbert" / "distilgpt2")
    rows = [{"title": text[:20], "answers": {"text": text.split("\n\n"), "score": [1]}} for text in documents[:60]]
    split = {"train": datasets.Dataset.from_list(rows), "validation1": datasets.Dataset.from_list(rows[:5])}
    datasets.DatasetDict(split).save_to_disk(str(place / "dany0407" / "eli5_category"))
    with HubServer() as hub:
        hub.user = "your-name"
        hub.use(monkeypatch, tmp_path / "hf_home")
        yield place
    for name in [name for name in sys.modules if str(tmp_path) in str(getattr(sys.modules[name], "__file__", ""))]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own
@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/adapters.md",
        "docs/data.md",
        "docs/tutorial.md",
        "docs/extending.md",
        "docs/testing.md",
        "docs/python.md",
        "docs/reports.md",
        "docs/scale.md",
        "docs/serving.md",
        "docs/scoring.md",
        pytest.param(
            "docs/keras.md",
            marks=[
                pytest.mark.skipif(importlib.util.find_spec("lmtasks_keras") is None, reason="tox run -e keras"),
                pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras, to NumPy 2
                pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning"),  # JAX, of torch's int64
            ],
        ),
        *(f"docs/{language}/tutorial.md" for language in LANGUAGES),
    ],
)
def test_everything_on_the_page_works(name: str, place: Path, lmtasks: Any, monkeypatch: Any) -> None:
    before = package.load_catalog()
    reader = Reader(ROOT / name, place, lmtasks, monkeypatch)
    reader.read()
    commands = [command for block in _blocks(reader.page) if block.language == "bash" for command in _commands(block)]
    assert reader.ran >= sum(command.split()[0] in ("lmtasks", "torchrun", "pytest") for command in commands) > 1
    catalog = package.load_catalog()
    recipes = [recipe for known, recipe in catalog.recipes.items() if known not in before.recipes]
    architectures = [one for kind, one in catalog.architectures.items() if kind not in before.architectures]
    for declared in [*vars(reader.module).values(), *recipes, *architectures]:
        if isinstance(declared, package.Recipe) and declared.name not in ("masked-lm", "causal-lm"):
            check_recipe(declared)
        elif isinstance(declared, package.Architecture):
            check_architecture(declared, CAUSAL_LM if "AutoModelForCausalLM" in declared.models else MASKED_LM)


def test_the_engine_on_the_page_trains_as_the_trainer() -> None:
    (block,) = (block for block in _blocks(DOCS / "extending.md") if block.title == "my_engine.py")
    module: dict[str, Any] = {}
    exec(compile(block.text, "my_engine.py", "exec", dont_inherit=True), module)
    (engine,) = module["lmtasks_engines"]()
    check_engine(engine, only=["training-is-the-trainers", "resumed-engine-is-uninterrupted"])


def test_readme_sets_up_a_fresh_machine_with_two_commands() -> None:
    commands = [command for block in _blocks(ROOT / "README.md")[:2] for command in _commands(block)]
    assert tuple(commands) == SETUP
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"]["lmtasks"] == "lmtasks.cli:main"
    assert "masked-lm" in project["entry-points"]["lmtasks"]
    minimum = project["requires-python"].removeprefix(">=")
    assert f"Python {minimum} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def _tox_environments() -> set[str]:
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    listed = re.search(r"^env_list\s*=(.*(?:\n[ \t]+.*)*)", text, re.MULTILINE)
    assert listed
    # What takes too long for every day is not on the list.
    return {*re.split(r"[,\s]+", listed[1].strip()), *re.findall(r"^\[testenv:(\w+)\]", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_tox_environments_and_extras_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    environments = {name for names in re.findall(r"tox run -e ([\w,-]+)", text) for name in names.split(",")}
    assert environments <= _tox_environments()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r'"\.\[(\w+)\]"', text)) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_commands_that_are_named_exist(page: Path) -> None:
    lines = [command for block in _blocks(page) if block.language == "bash" for command in _commands(block)]
    named = {command.split()[1] for command in lines if command.startswith("lmtasks ")}
    named |= set(re.findall(r"`lmtasks ([a-z][\w-]*)", _prose(page)))
    own = re.findall(r'Command\(name="(\w+)"', page.read_text(encoding="utf-8"))
    assert named <= {*COMMANDS, *own}


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """Every flag that there is, under each of its names."""
    declared = [options_of(kind) for kind in (*SETTINGS, *(recipe.options for recipe in package.recipes().values()))]
    ours = [option for options in declared for option in options.values()]
    generation = set(transformers.GenerationConfig().to_dict())
    commands = {"help", "help_all", "json", "config", "version", *FLAGS}
    commands |= {name.replace("-", "_") for name in (DEFAULT, *LAUNCHERS, *ENGINES)}  # their options come after a dot
    always = {*ALWAYS, *REFUSED, *training_options(), *generation, *commands}
    return always.union(*({option.name, *option.aliases} for option in ours))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_flags_that_are_named_exist(page: Path, known_flags: set[str], lmtasks: Any) -> None:
    text = re.sub(r"`(?:[A-Z_]+=\w+ )?(?:pip|python|tox|hf) [^`\n]*`", "", page.read_text(encoding="utf-8"))
    text = re.sub(r"torchrun .*-m lmtasks|`torchrun --\w+`|`--rdzv_backend c10d`", "lmtasks", text)
    typed = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", text)}
    typed -= {flag for flag in typed if flag.partition("_")[0] in ENGINES}  # of a package that is not installed here
    told = {flag for command in COMMANDS for flag in re.findall(r"--(\w+)", lmtasks(command, "--help").out)}
    own = set(re.findall(r"^    (\w+): \w+ = option", text, re.MULTILINE))
    own |= set(re.findall(r'(?:Engine|Extension|Launcher)\(\s*name="(\w+)"', text))  # their options come after a dot
    gone = _rows(_section(page, "Coming from run_mlm.py and run_clm.py")) if page.name == "recipes.md" else {}
    gone = {name.split()[0] for name in gone}
    assert typed - known_flags - told - own - gone == set()
    assert gone & known_flags <= set(ALWAYS), "flags that are said to be missing are there"


# --- completeness ---


def _default(option: Option) -> str:
    """A default as the tables show it."""
    if option.default is None:
        return "–"
    if isinstance(option.default, bool):
        return "yes" if option.default else "no"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _assert_documents(rows: Mapping[str, list[str]], options: Mapping[str, Option]) -> None:
    assert rows.keys() == options.keys()
    for name, option in options.items():
        assert rows[name][1] == _default(option), f"the default of {name}"
        assert all(f"`--{alias}`" in rows[name][0] for alias in option.aliases), f"another name of {name}"


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_every_flag_has_its_row(settings: type) -> None:
    headings = {StoppingSettings: "Stopping early", BatchSettings: "The global batch"}
    heading = headings.get(settings, settings.__name__.removesuffix("Settings"))
    rows = _rows(_section(DOCS / "cli.md", heading))
    _assert_documents(rows, options_of(settings))


def test_every_option_of_the_built_in_launcher_has_its_row() -> None:
    rows = _rows(_section(DOCS / "scale.md", "Launchers"))
    _assert_documents(
        {name: row for name, row in rows.items() if name.startswith("torchrun.")},
        {option.name: option for option in TORCHRUN.flags.values()},
    )


@pytest.mark.parametrize("name", ["masked-lm", "causal-lm"])
def test_every_option_of_a_recipe_has_its_row(name: str) -> None:
    recipe = package.recipes()[name]
    section = _section(DOCS / "recipes.md", name)
    _assert_documents(_rows(section), options_of(recipe.options))
    assert recipe.starter is not None
    for value in (recipe.model_class, recipe.pipeline, *recipe.metrics, *map(str, recipe.starter.model.values())):
        assert f"`{value}`" in section, value
    for setting, value in recipe.starter.training.items():
        assert f"`{setting}={value:g}`" in section, setting


def test_every_built_in_recipe_has_its_section() -> None:
    catalog = package.load_catalog()
    for name in catalog.recipes:
        if catalog.owner(name).distribution == "lmtasks":
            _section(DOCS / "recipes.md", name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_section(command: str, lmtasks: Any) -> None:
    section = _section(DOCS / "cli.md", f"lmtasks {command}")
    if command not in ("run", "evaluate"):
        helped = lmtasks(command, "--help").out
        assert set(re.findall(r"--[a-z_]+", helped)) - {"--help", "--json"} <= set(re.findall(r"--[a-z_]+", section))


def test_every_refused_field_has_its_row() -> None:
    assert _rows(_section(DOCS / "cli.md", "Fields that are refused")).keys() == REFUSED.keys()
    assert all(f"`--{name}`" in _section(DOCS / "cli.md", "Training") for name in ALWAYS)


def test_every_exit_code_has_its_row() -> None:
    codes = {0, InputError.exit_code, RunError.exit_code, LmtasksError.exit_code}
    codes |= {Interrupted("", "", number).exit_code for number in (2, 15)}
    assert {int(code) for code in _rows(_section(DOCS / "cli.md", "Exit codes"))} == codes


def test_every_environment_variable_is_named() -> None:
    section = _section(DOCS / "cli.md", "Environment variables")
    for path in (ROOT / "lmtasks").rglob("*.py"):
        for name in re.findall(r'environ\S*[(\[]"(\w+)"', path.read_text(encoding="utf-8")):
            assert f"`{name}`" in section


def test_every_file_and_figure_of_a_run_is_named(text_file: Path, tmp_path: Path, lmtasks: Any) -> None:
    out = tmp_path / "out"
    done = lmtasks("run", "masked-lm", "--train_file", text_file, "--output_dir", out, "--max_steps", 1)
    assert done.code == 0, done.err
    section = _section(DOCS / "cli.md", "The run folder")
    named = set(re.findall(r"`([\w.]+)/?`", section))
    files = {path.name for path in out.iterdir()} | set(folder.OWN)
    assert files - named == set(), "files without a word about them"
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record.keys() - named == set(), "keys of run.json without a word about them"
    figures = set(json.loads((out / "all_results.json").read_text(encoding="utf-8")))
    assert figures - set(_rows(_section(DOCS / "cli.md", "Figures"))) == set()


# --- what plugin authors rely on ---

DECLARATIONS = (
    package.Recipe,
    package.LossTerm,
    package.Architecture,
    package.Blocks,
    package.Medium,
    package.Starter,
    package.TokenizerSpec,
    package.WordSegmenter,
    package.Launcher,
    package.Engine,
    package.Job,
    package.BlockOptions,
    package.Extension,
    package.Command,
)


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.__name__)
def test_every_field_of_a_declaration_has_its_row(declaration: Any) -> None:
    rows = _rows(_section(DOCS / "extending.md", declaration.__name__))
    fields = {field.name: field for field in dataclasses.fields(declaration) if field.init}
    assert rows.keys() == fields.keys()
    nothing = dataclasses.MISSING
    required = {name for name, field in fields.items() if field.default is field.default_factory is nothing}
    assert {name for name, row in rows.items() if row[1] == "required"} == required


def test_every_check_has_its_row_in_the_order_in_which_they_run() -> None:
    rows = _rows(_section(DOCS / "testing.md", "The checks"))
    assert list(rows) == list(checks())
    for name, check in checks().items():
        assert rows[name][1] == ("both" if len(check.subjects) == 2 else min(check.subjects)), name
        assert ("*" in rows[name][0]) == check.gate, name
        assert all(rows[name][2:4]), name


def test_every_argument_of_check_recipe_has_its_row() -> None:
    rows = _rows(_section(DOCS / "testing.md", "check_recipe"))
    assert list(rows) == list(inspect.signature(check_recipe).parameters)


def test_every_fixture_has_its_row() -> None:
    rows = _rows(_section(DOCS / "testing.md", "Fixtures"))
    assert list(rows) == [name for name in vars(fixtures) if name.startswith("lmtasks_")]


def test_every_name_of_the_testing_kit_is_explained() -> None:
    text = (DOCS / "testing.md").read_text(encoding="utf-8")
    assert [name for name in testing.__all__ if f"`{name}" not in text and f"{name}(" not in text] == []


def test_every_argument_of_option_has_its_row() -> None:
    rows = _rows(_section(DOCS / "extending.md", "option"))
    assert rows.keys() == inspect.signature(package.option).parameters.keys()


def test_every_hook_has_its_section() -> None:
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "lmtasks_spec")]
    assert hooks
    for name in hooks:
        section = _section(DOCS / "extending.md", name)
        assert f"{name}()" in section, "the signature"


def test_every_public_name_is_explained() -> None:
    text = "".join((DOCS / f"{page}.md").read_text(encoding="utf-8") for page in ("extending", "python"))
    assert [name for name in package.__all__ if not re.search(rf"\b{name}\b", text)] == []


def _steps(page: Path) -> list[str]:
    """The commands of a page, without the names of files and texts, which are in its language."""
    commands = [command for block in _blocks(page) if block.language == "bash" for command in _commands(block)]
    return [" ".join(word for word in re.sub(r'"[^"]*"', "", one).split() if word.isascii()) for one in commands]


def test_the_tutorial_has_the_same_steps_in_every_language() -> None:
    """But for the tokenizer, which is one that suits the language."""
    told = []
    for language in LANGUAGES:
        page = DOCS / language / "tutorial.md"
        (name,) = {block.title.removesuffix(".txt") for block in _blocks(page) if block.title}
        steps = [step.replace(name, "NAME") for step in _steps(page)]
        told.append([re.sub(r" --(model_type|tokenizer_model|train_tokenizer) \w+", "", step) for step in steps])
    assert len(told[0]) == 10
    assert told == told[:1] * len(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tutorial_of_a_language_leads_to_those_of_the_others(language: str) -> None:
    text = (DOCS / language / "tutorial.md").read_text(encoding="utf-8")
    others = {f"../{other}/tutorial.md" for other in LANGUAGES if other != language} | {"../tutorial.md"}
    assert others <= set(re.findall(r"\]\(([^)\s]+)\)", text))
    assert f"{language}/tutorial.md" in (DOCS / "tutorial.md").read_text(encoding="utf-8")


# --- links and hygiene ---


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _anchors(page: Path) -> set[str]:
    return {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`((?:lmtasks|tests|plugins|docs|benchmarks)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_no_local_path_and_no_package_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])(?:/(?:home|root|work|tmp|Users|var|opt|mnt)\b|[A-Z]:\\)", text)
    assert not re.search(r"pypi\.|pythonhosted|anaconda\.org|index-url|npmjs|crates\.io", text)
    assert not re.search(r"hf_[A-Za-z0-9]{8,}", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/"))
def test_tables_are_tables(page: Path) -> None:
    rows: list[int] = []
    for line in [*io.StringIO(_prose(page)), ""]:
        if line.startswith("|"):
            rows.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(rows)) <= 1, f"cells do not line up before {line!r}"
            rows = []
