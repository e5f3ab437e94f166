"""Spaces, against a Hub on the loopback interface; what is in one is run as it is."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from lmtasks import run
from lmtasks.artifacts.space import require_package, space_files
from lmtasks.errors import InputError
from lmtasks.inference.predictor import predict

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SPACE = "spaces/someone/try-it"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], text_file: Path) -> Path:
    """A run with a model that fills masks."""
    out = tmp_path_factory.mktemp("space") / "out"
    run("masked-lm", model=str(model_folders["roberta"]), train_file=str(text_file), block_size=16, max_steps=1,
        output_dir=str(out))  # fmt: skip
    return out


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.use(monkeypatch, tmp_path / "home")
        yield server
        server.assert_no_secret_travelled(str(tmp_path))


def test_a_space_is_published_beside_its_model(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    done = lmtasks("push", run_dir, "it", "--space", "try-it", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["space"] == f"{hub.endpoint}/spaces/someone/try-it"
    assert told["url"].startswith(f"{hub.endpoint}/someone/it/commit/")
    files = hub.files(SPACE)
    assert set(files) == {"app.py", "requirements.txt", "README.md"}
    assert files["requirements.txt"].decode() == f"lmtasks[demo]=={version('lmtasks')}\n"
    card = SpaceCard(files["README.md"].decode())
    about = (card.data.title, card.data.sdk, card.data.app_file, card.data.models, card.data.tags)
    assert about == ("try-it", "gradio", "app.py", ["someone/it"], ["lmtasks"])
    asked = hub.received("POST /api/repos/create")[-1].json
    assert asked["sdk"] == "gradio" and "visibility" not in asked
    assert not hub.repos["someone/it"].private and not hub.repos[SPACE].private


def test_what_the_space_shows_is_the_model(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    assert lmtasks("push", run_dir, "someone/it", "--space", "someone/try-it").code == 0
    app = ast.parse(hub.files(SPACE)["app.py"])
    (words,) = [ast.literal_eval(node.args[0]) for node in ast.walk(app)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "main"]  # fmt: skip
    assert words == ["demo", "someone/it", "--host", "0.0.0.0", "--port", "7860", "--recipe", "masked-lm"]
    text = "the <mask> is"
    # Alone and from the Hub, the pipeline's own answer is that of the run.
    assert predict(words[1], text, recipe=words[-1]) == predict(run_dir, text)


def test_a_private_model_has_a_private_space(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    for _ in range(2):
        assert lmtasks("push", run_dir, "someone/it", "--space", "someone/try-it", "--private").code == 0
    assert hub.repos["someone/it"].private and hub.repos[SPACE].private


def test_a_private_model_has_no_public_space(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    assert lmtasks("push", run_dir, "someone/other", "--space", "someone/try-it").code == 0
    commits = len(hub.repos[SPACE].commits)
    done = lmtasks("push", run_dir, "someone/it", "--space", "someone/try-it", "--private")
    assert done.code == 2 and "the Space someone/try-it exists and is public, but --private" in done.err
    assert len(hub.repos[SPACE].commits) == commits


def test_a_branch_is_named_in_the_space(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    assert lmtasks("push", run_dir, "someone/it", "--space", "someone/try-it", "--revision", "v2").code == 0
    assert b'"--revision", "v2"' in hub.files(SPACE)["app.py"]


def test_a_hub_that_fails_says_how_to_go_on(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    hub.fail_next("POST /api/spaces/.*/commit/", 500)
    done = lmtasks("push", run_dir, "someone/it", "--space", "someone/try-it", "--private")
    assert done.code == 3 and "(someone/try-it, HTTP 500)" in done.err
    assert f"lmtasks push {run_dir} someone/it --private --space someone/try-it" in done.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--space", "no good"), "'no good' cannot be the id of a repository"),
        (("--space", "me/it", "--create_pr"), "a Space shows what is published, and a pull request is not yet"),
    ],
)
def test_a_mistake_publishes_nothing(flags: Any, says: str, hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    done = lmtasks("push", run_dir, "someone/it", *flags)
    assert done.code == 2 and says in done.err and hub.requests == []


def test_a_recipe_in_a_file_has_no_space(hub: HubServer, run_dir: Path, lmtasks: Any) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    record |= {"recipe": "mine", "owner": "recipe.py", "origin": {"file": "/somewhere/recipe.py"}}
    with pytest.raises(InputError, match="the recipe 'mine' is in no package that a Space could install"):
        require_package(record)


def test_a_recipe_of_a_plugin_brings_its_package() -> None:
    origin = {"package": "lmtasks-gaps", "version": "1.2"}
    record = {"recipe": "gaps", "owner": "lmtasks-gaps:gaps", "origin": origin, "versions": {"lmtasks": "0.1.0"}}
    files = space_files(record, "me/it", 'a "title"')
    required = [Requirement(line) for line in files["requirements.txt"].splitlines()]
    assert [(one.name, one.extras, str(one.specifier)) for one in required] == [
        ("lmtasks", {"demo"}, "==0.1.0"),
        ("lmtasks-gaps", set(), "==1.2"),
    ]
    assert '"--recipe", "lmtasks-gaps:gaps"' in files["app.py"]
    assert yaml.safe_load(files["README.md"].split("---")[1])["title"] == 'a "title"'
