"""What comes from elsewhere is data: it is not run, it leads nowhere, and it does not swell.

Each planted code writes a file, so that one which runs is found out.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer

from lmtasks.artifacts.run_folder import unsealed
from lmtasks.cli.app import main
from lmtasks.config.request import read_yaml
from lmtasks.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

RAN = "ran.txt"
ALL_STEPS = ["--block_size", "16", "--max_steps", "2", "--save_steps", "1", "--train_file", "text.txt"]


class Evil:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"echo > '{self.marker}'",)


CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "odd"
class Model(PreTrainedModel):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def finished(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and a finished run ``out``. Do not write to it."""
    home = tmp_path_factory.mktemp("security")
    shutil.copy(text_file, home / "text.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        asked = ["run", "masked-lm", "--model", str(model_folders["roberta"]), *ALL_STEPS, "--output_dir", "out"]
        assert main(asked) == 0
    return home


@pytest.fixture
def here(finished: Path, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with a model folder ``model``."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.copytree(model_folders["roberta"], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.use(monkeypatch, here / "hf_home")
        yield server


def unfinished(folder: Path) -> None:
    """Turn the finished run into one that was killed after its first checkpoint."""
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    shutil.rmtree(folder / "checkpoints/checkpoint-2")


def resume(model: Path) -> list[str]:
    asked = ["run", "masked-lm", "--model", str(model), *ALL_STEPS, "--output_dir", "out"]
    return [*asked, "--resume_from_checkpoint", "true"]


def uses(folder: str) -> list[list[str]]:
    """Commands that read a run or a model; the last goes as far as training would begin."""
    trained = ["run", "masked-lm", "--model", folder, *ALL_STEPS, "--output_dir", "new", "--dry_run"]
    evaluated = ["evaluate", folder, "--validation_file", "text.txt", "--block_size", "16", "--max_eval_samples", "4"]
    return [["predict", folder, "A <mask> ."], evaluated, trained]


def answer(words: list[str]) -> int:
    """The exit code of a command; what it failed with otherwise is another test's business."""
    try:
        return main(words)
    except Exception:
        return 1


# --- pickles ---


def plant_pickles(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        evil = Evil(folder.parents[len(folder.parents) - 1] / Path.cwd() / RAN)
        if number % 2:  # torch's own format, and a bare pickle
            torch.save({"state": evil}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(evil))


def test_the_planted_pickle_would_run(here: Path) -> None:
    """Or the tests below would prove nothing."""
    plant_pickles(here, "a.bin", "b.bin")
    for name in ("a.bin", "b.bin"):
        if name == "a.bin":
            pickle.loads((here / name).read_bytes())
        else:
            torch.load(here / name, weights_only=False)
        assert (here / RAN).exists()
        (here / RAN).unlink()


@pytest.mark.parametrize(
    "names",
    [
        ["optimizer.pt", "x.bin"],
        ["x.bin", "optimizer.pt"],
        ["scheduler.pt"],
        ["x.bin", "rng_state.pth"],
        ["scaler.pt", "training_args.bin", "pytorch_model.bin", "pytorch_model.bin.index.json"],
    ],
    ids=lambda names: names[-1],
)
def test_no_pickle_in_a_checkpoint_runs_when_a_run_is_resumed(
    names: list[str], here: Path, model_folders: dict[str, Path]
) -> None:
    unfinished(here / "out")
    plant_pickles(here / "out/checkpoints/checkpoint-1", *names)
    answer(resume(model_folders["roberta"]))
    assert not (here / RAN).exists()


def test_no_pickle_in_a_run_or_a_model_runs_when_it_is_used(here: Path, hub: HubServer) -> None:
    names = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state.pth", "adapter_model.bin"]
    plant_pickles(here / "out", *names)
    plant_pickles(here / "model", *names)
    for words in [*uses("out")[:2], *uses("model"), ["push", "out", "someone/model"]]:
        assert answer(words) == 0, words
        assert not (here / RAN).exists(), words
    assert not {name for name in hub.files("someone/model") if name.endswith((".bin", ".pt", ".pth"))}


def test_weights_that_are_nothing_but_a_pickle_are_refused(here: Path, lmtasks: Any) -> None:
    for folder in ("out", "model"):
        Path(folder, "model.safetensors").unlink()
        plant_pickles(here / folder, "pytorch_model.bin")
        for words in uses(folder):
            refused = lmtasks(*words)
            assert refused.code == 2 and "pickle (.bin), which can run code" in refused.err, words
    assert not (here / RAN).exists()


# --- code beside a model ---


def plant_code(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    (folder / "odd.py").write_text(CODE.format(marker=str(Path.cwd() / RAN)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(Path.cwd() / RAN)))
    for name, changes in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        old = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**old, **changes}))


MAPS: dict[str, Any] = {
    "AutoConfig": "odd.Config", "AutoModel": "odd.Model", "AutoModelForMaskedLM": "odd.Model",
    "AutoTokenizer": ["odd.Tokenizer", "odd.Tokenizer"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        ({"auto_map": MAPS}, {}),
        ({"auto_map": MAPS, "model_type": "odd"}, {}),
        ({}, {"auto_map": {"AutoTokenizer": ["odd.Tokenizer", "odd.Tokenizer"]}}),
        ({}, {"auto_map": {"AutoTokenizer": ["odd.Tokenizer", None]}, "tokenizer_class": "OddTokenizer"}),
        ({"custom_pipelines": {"fill-mask": {"impl": "odd.Model", "pt": ["AutoModelForMaskedLM"]}}}, {}),
        ({"trust_remote_code": True, "auto_map": MAPS}, {"trust_remote_code": True, "auto_map": MAPS}),
    ],
    ids=["known type", "unknown type", "tokenizer", "tokenizer of no known class", "pipeline", "says it is trusted"],
)
def test_code_beside_a_model_does_not_run_unasked(
    config: dict[str, Any], tokenizer: dict[str, Any], here: Path, lmtasks: Any
) -> None:
    for folder in ("out", "model"):
        plant_code(here / folder, config, tokenizer)
        for words in uses(folder)[:: 2 if folder == "model" else 1]:
            outcome = lmtasks(*words)
            assert not (here / RAN).exists(), words
            assert outcome.code in (0, 2) and "Traceback" not in outcome.err, words


def test_code_beside_a_model_is_not_published(here: Path, hub: HubServer) -> None:
    plant_code(here / "out", {"auto_map": MAPS}, {})
    record = unsealed(json.loads((here / "out/run.json").read_text()))
    # Whoever plants code can also say that this is how it was.
    record |= {"files": [*record["files"], "odd.py", "custom_generate/generate.py"], "sha256": {}}
    (here / "out/run.json").write_text(json.dumps(record))
    assert answer(["push", "out", "someone/model"]) == 0
    assert not (here / RAN).exists()
    assert not {name for name in hub.files("someone/model") if name.endswith(".py")}


# --- what a record says ---


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": {"file": "{here}/odd.py"}},
        {"origin": {"module": "odd"}},
        {"origin": {"module": "model.odd"}},
        {"origin": {"module": "../odd"}},
        {"origin": {"package": "{here}/odd.py"}},
        {"origin": {"package": "../odd.py"}},
        {"origin": ["odd"]},
        {"origin": "odd"},
        {"recipe": "{here}/odd.py"},
        {"recipe": "./odd.py:Config"},
        {"recipe": "../../odd"},
        {"recipe": "odd\nmasked-lm\0"},
        {"pipeline": "odd:Model", "model_class": "odd:Model"},
    ],
    ids=str,
)
def test_a_record_does_not_say_what_is_run(changes: dict[str, Any], here: Path, lmtasks: Any) -> None:
    for place in (here, here / "model"):
        (place / "odd.py").write_text(CODE.format(marker=str(here / RAN)))
    record = unsealed(json.loads((here / "out/run.json").read_text()))
    text = json.dumps({**record, **changes}).replace("{here}", str(here))
    (here / "out/run.json").write_text(text)
    outcome = lmtasks(*uses("out")[0])
    assert not (here / RAN).exists()
    assert outcome.code in (0, 2) and "Traceback" not in outcome.err
    # Where the record names no recipe of ours, it is refused; its other words say nothing.
    names_other_code = "recipe" in changes or isinstance(changes.get("origin"), dict)
    assert (outcome.code == 2) == names_other_code, outcome.err


NAMES = [
    "../model.safetensors", "/etc/hostname", "..", "a\0.safetensors", "a\n.safetensors", "\\\\host\\a.safetensors",
    ".hidden.safetensors", "sub/../model.safetensors", "./model.safetensors", "x" * 5000 + ".safetensors",
    "additional_chat_templates/../x.jinja", "additional_chat_templates/.jinja", 7, None, ["model.safetensors"],
]  # fmt: skip


def test_no_name_in_a_record_leads_out_of_the_folder(here: Path, hub: HubServer, lmtasks: Any) -> None:
    (here / "model.safetensors").write_bytes(b"mine")
    (here / "out/.hidden.safetensors").write_bytes(b"mine")
    record = unsealed(json.loads((here / "out/run.json").read_text()))
    whole = record["files"]
    (here / "out/run.json").write_text(json.dumps({**record, "files": [*whole, *NAMES]}))
    assert lmtasks("push", "out", "someone/model").code == 0
    assert b"mine" not in hub.files("someone/model").values()
    assert set(hub.files("someone/model")) <= {
        *whole,
        "README.md",
        "run.json",
        *(p.name for p in Path("out").iterdir()),
    }
    for files in (7, "model.safetensors", {"model.safetensors": 1}):
        (here / "out/run.json").write_text(json.dumps({**record, "files": files}))
        assert lmtasks("push", "out", "someone/other").code == 2


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "/secret.safetensors", "sub/secret.safetensors", "..\\x.safetensors", "a\0.safetensors",
     "a\n.safetensors", "odd.bin", "", 7, None],
)  # fmt: skip
def test_an_index_of_shards_does_not_lead_out_of_the_folder(shard: Any, here: Path, lmtasks: Any) -> None:
    (here / "secret.safetensors").write_bytes((here / "model/model.safetensors").read_bytes())
    # All commands with one of them; the others with the quickest.
    folders = ("model", "out") if shard == "../secret.safetensors" else ("model",)
    for folder in folders:
        (here / folder / "model.safetensors").rename(here / folder / "model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {"lm_head.bias": shard}}
        (here / folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for words in uses(folder)[: 3 if len(folders) > 1 else 1]:
            refused = lmtasks(*words)
            assert refused.code == 2 and "which is no file of weights beside it" in refused.err, words


def names_its_weights(folder: Path, own: Any) -> None:
    """The configuration of a model says what the file of its weights is called."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": own}))


def test_an_index_of_a_name_of_its_own_does_not_either(here: Path, lmtasks: Any) -> None:
    (here / "secret.safetensors").write_bytes((here / "model/model.safetensors").read_bytes())
    (here / "model/own.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    names_its_weights(here / "model", "own.safetensors.index.json")
    for words in uses("model"):
        refused = lmtasks(*words)
        assert refused.code == 2 and "which is no file of weights beside it" in refused.err, words


@pytest.mark.parametrize(
    "own", ["adapter_model.bin", "../secret.safetensors", "sub/model.safetensors", "a.json", "", 7]
)
def test_a_configuration_names_no_weights_but_safetensors_beside_it(own: Any, here: Path, lmtasks: Any) -> None:
    names_its_weights(here / "model", own)
    refused = lmtasks(*uses("model")[0])
    assert refused.code == 2 and "which is no file of weights beside it" in refused.err
    assert f"config.json' names {own!r}" in refused.err


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 7}', "{", "[" * 100_000])
def test_a_damaged_index_of_shards_is_told(content: str, here: Path, lmtasks: Any) -> None:
    (here / "model/model.safetensors.index.json").write_text(content)
    refused = lmtasks(*uses("model")[0])
    assert refused.code == 2 and "model.safetensors.index.json' is damaged" in refused.err


def test_a_tokenizer_does_not_bring_a_file_of_this_machine_into_a_run(here: Path, lmtasks: Any) -> None:
    (here / ".env").write_text("PASSWORD=swordfish\n")
    config = json.loads((here / "model/tokenizer_config.json").read_text())
    for name in ("vocab_file", "merges_file", "tokenizer_file", "chat_template_file"):
        config[name] = str(here / ".env")
    (here / "model/tokenizer_config.json").write_text(json.dumps(config))
    lmtasks(*uses("model")[2][:-1])
    assert not any(b"swordfish" in path.read_bytes() for path in Path("new").rglob("*") if path.is_file())


# --- links ---


def test_overwriting_a_run_leaves_alone_what_links_in_it_lead_to(
    here: Path, model_folders: dict[str, Path], lmtasks: Any
) -> None:
    (here / "precious").mkdir()
    for name in ("letter.txt", "checkpoint-1"):
        (here / "precious" / name).write_text("mine")
    shutil.rmtree("out/checkpoints")
    Path("out/checkpoints").symlink_to(here / "precious")
    Path("out/.saving").symlink_to(here / "precious")
    for name in ("log.jsonl", "README.md", "model.safetensors", ".run.json.new", "trainer_state.json"):
        Path("out", name).unlink(missing_ok=True)
        Path("out", name).symlink_to(here / "precious/letter.txt")
    asked = [word for word in resume(model_folders["roberta"]) if word not in ("--resume_from_checkpoint", "true")]
    done = lmtasks(*asked, "--overwrite_output_dir")
    assert done.code == 0, done.err
    assert {path.name: path.read_text() for path in (here / "precious").iterdir()} == {
        "letter.txt": "mine", "checkpoint-1": "mine"
    }  # fmt: skip
    assert not [path for path in Path("out").rglob("*") if path.is_symlink()]


# --- names ---


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run ../masked-lm", "unknown recipe '../masked-lm'"),
        ("show /etc/passwd", "unknown recipe '/etc/passwd'"),
        ("run masked-lm --validation_file ../x=text.txt", "../x=text.txt"),
        ("push out ../../x", "cannot be the id of a repository"),
        ("push out a/../b", "cannot be the id of a repository"),
        ("predict ../../../nowhere text", "no model folder"),
        ("new-plugin ../up", "cannot be the name of a package"),
    ],
)
def test_tricks_in_names_are_refused(words: str, says: str, here: Path, hub: HubServer, lmtasks: Any) -> None:
    refused = lmtasks(*words.split())
    assert refused.code == 2 and says in refused.err.splitlines()[-2]
    assert hub.requests == []


@pytest.mark.parametrize("name", ["some\none/model", "someone/mo\0del", "someone/model\n"])
def test_a_repository_id_of_several_lines_is_refused(name: str, here: Path, hub: HubServer, lmtasks: Any) -> None:
    refused = lmtasks("push", "out", name)
    assert refused.code == 2
    assert [line.partition(":")[0] for line in refused.err.splitlines()] == ["error", "hint"]
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model", "tokenizer_name", "train_file", "output_dir", "config_name", "dataset"])
def test_a_nul_in_a_name_is_refused(name: str, here: Path, lmtasks: Any) -> None:
    (here / "odd.yaml").write_text(f'{name}: "a\\0b"\n')
    more = [] if name != "config_name" else ["--train_tokenizer", "400"]
    source = [] if name in ("train_file", "dataset") else ["--train_file", "text.txt"]
    before = sorted(here.rglob("*"))
    refused = lmtasks("run", "masked-lm", "--config", "odd.yaml", *source, *more)
    assert refused.code == 2, refused.err
    assert [line.partition(":")[0] for line in refused.err.splitlines()[-2:]] == ["error", "hint"]
    assert sorted(here.rglob("*")) == before


# --- YAML ---

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SWOLLEN = {
    "laughs": BOMB + "train_file: *i\n",
    "mappings": BOMB.replace("[", "{k: [").replace("]", "]}") + "seed: *i\n",
    "itself": "seed: &a [*a]\n",
    "itself as a key": "? &a [*a]\n: 1\n",
}
TAGS = ("!!python/object/apply:os.system ['echo > ran.txt']", "!!python/name:os.system", "!!python/module:os", "!odd 1",
        "!!python/object/new:os.system [\"echo > ran.txt\"]", "!!timestamp 'x'")  # fmt: skip


@pytest.mark.parametrize("flag", ["config", "data"])
@pytest.mark.parametrize("kind", SWOLLEN)
def test_a_file_that_swells_is_refused_soon(flag: str, kind: str, here: Path, lmtasks: Any) -> None:
    (here / "bomb.yaml").write_text(SWOLLEN[kind])
    tracemalloc.start()
    began = time.monotonic()
    refused = lmtasks("run", "masked-lm", f"--{flag}", "bomb.yaml")
    took, (_, most) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.code == 2
    said = "this is a part of itself" if kind.startswith("itself") else "unfolds to more than 100,000 values"
    assert "'bomb.yaml'" in refused.err and said in refused.err
    assert len(refused.err) < 1000
    assert took < 10 and most < 50 << 20


def test_aliases_that_do_not_swell_are_taken(here: Path) -> None:
    (here / "fine.yaml").write_text("train_file: &files [a.txt, b.txt]\nvalidation_file: *files\n")
    assert read_yaml("fine.yaml") == {"train_file": ["a.txt", "b.txt"], "validation_file": ["a.txt", "b.txt"]}


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_file_that_is_nested_too_deep_is_refused(opening: str, here: Path) -> None:
    (here / "deep.yaml").write_text(opening * 2000)
    with pytest.raises(InputError, match=r"'deep\.yaml' is (nested too deeply|not YAML)"):
        read_yaml("deep.yaml")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_makes_no_object(tag: str, here: Path) -> None:
    (here / "tag.yaml").write_text(f"seed: {tag}\n")
    with pytest.raises(InputError, match=r"'tag\.yaml' is not YAML"):
        read_yaml("tag.yaml")
    assert not (here / RAN).exists()
