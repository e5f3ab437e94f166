"""Publishing, against a Hub on the loopback interface: real model, real huggingface_hub, real HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer
from huggingface_hub import parse_eval_result_entries

from lmtasks.artifacts import publish as publishing
from lmtasks.artifacts.lock import reserved
from lmtasks.artifacts.publish import check_can_push, push
from lmtasks.errors import InputError, RunError

# huggingface_hub uploads by a way that its HTTP library has begun to deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "someone/tiny-model"
LEAKED = "hf_" + "leaked0" * 5
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RUN_FILES = {"README.md", "run.json", "all_results.json", "train_results.json", "eval_results.json"}
RECORD: dict[str, Any] = {
    "status": "done",
    "recipe": "causal-lm",
    "owner": "lmtasks:causal-lm",
    "summary": "Continue text.",
    "pipeline": "text-generation",
    "model_type": "gpt2",
    "base_model": "/home/someone/secret/path",
    "data": {"source": "/home/someone/corpus.txt", "train": {"documents": 2, "tokens": 9, "blocks": 1}},
    "settings": {"train_file": ["/home/someone/secret/corpus.txt"], "hub_token": LEAKED, "train_tokenizer": 300},
    "training": {"learning_rate": 1e-3, "output_dir": "/home/someone/secret/out"},
    "versions": {"lmtasks": "0.1.0"},
    "example": "the cat",
    "metrics": {"eval_loss": 2.5, "perplexity": 12.182, "train_tokens_per_second": 7.5},
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a tiny GPT-2, as the runner leaves it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    _save_tiny_model(folder)
    files = sorted(path.name for path in folder.iterdir())
    assert set(files) == MODEL_FILES
    (folder / "run.json").write_text(json.dumps({**RECORD, "files": files}))
    (folder / "README.md").write_text('---\nlibrary_name: transformers\n---\n\nlmtasks predict REPO_OR_FOLDER "..."\n')
    for split in ("all", "train", "eval"):
        (folder / f"{split}_results.json").write_text('{"eval_loss": 2.5}')
    return folder


def _save_tiny_model(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["[UNK]", "[EOS]", "the", "cat", "sat", "on", "mat"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[EOS]").save_pretrained(folder)


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run for one test to change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def online(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    hub.use(monkeypatch, tmp_path / "hf_home")
    return hub


def _edit_record(run_dir: Path, **changes: Any) -> None:
    record = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**record, **changes}))


def _add_decoys(run_dir: Path) -> list[str]:
    """Things that lie in a run folder and must stay there."""
    (run_dir / ".env").write_text(f"HF_TOKEN={LEAKED}\n")
    (run_dir / "training_args.bin").write_bytes(LEAKED.encode())
    (run_dir / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (run_dir / "checkpoints" / "checkpoint-1" / "model.safetensors").write_bytes(b"weights of an earlier step")
    (run_dir / "log.jsonl").write_text('{"step": 1}\n')
    (run_dir / "report.html").write_text("held-out text")
    (run_dir / "report.json").write_text("{}")
    (run_dir / ".lock").write_text("4711")
    (run_dir / "notes.txt").write_text(f"my token is {LEAKED}")
    (run_dir / "vocab.txt").symlink_to("/etc/hostname")
    (run_dir.parent / "config.json").write_text("{}")
    return [
        ".env",
        "training_args.bin",
        "checkpoints/checkpoint-1/model.safetensors",
        "log.jsonl",
        "report.html",
        "report.json",
        ".lock",
        "notes.txt",
    ]


def _fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# What arrives


def test_published_model_loads_back_and_nothing_else_arrived(hub: HubServer, run_dir: Path, tmp_path: Path) -> None:
    """The whole way in a process that knows the Hub only by its environment, as a person's would."""
    decoys = _add_decoys(run_dir)
    outside = ["/etc/hostname", "../config.json", "checkpoints/../.env"]
    _edit_record(run_dir, files=[*sorted(MODEL_FILES), *decoys, *outside])
    before = _fingerprint(run_dir)

    report = _push_and_load_elsewhere(hub, run_dir, tmp_path / "hf_home")

    assert set(hub.files(REPO)) == MODEL_FILES | RUN_FILES
    assert report["url"].startswith(f"{hub.endpoint}/{REPO}/commit/")
    assert report["loaded"] == report["local"]
    assert _fingerprint(run_dir) == before
    hub.assert_no_secret_travelled("/home/someone", str(tmp_path))


def _push_and_load_elsewhere(hub: HubServer, run_dir: Path, home: Path) -> dict[str, Any]:
    script = """
import json, sys
from lmtasks.artifacts.publish import push
assert not {"torch", "transformers"} & sys.modules.keys()
url = push(sys.argv[1], sys.argv[2])
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
def logits(source):
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    return model(**tokenizer("the cat sat on the mat", return_tensors="pt")).logits.tolist()
print(json.dumps({"url": url, "local": logits(sys.argv[1]), "loaded": logits(sys.argv[2])}))
"""
    package_root = Path(publishing.__file__).parents[1]
    environment = os.environ | hub.environment(home) | {"PYTHONPATH": str(package_root)}
    command = [sys.executable, "-c", script, str(run_dir), REPO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_published_record_is_redacted_and_the_folder_keeps_its_own(online: HubServer, run_dir: Path) -> None:
    before = (run_dir / "run.json").read_bytes()
    push(run_dir, REPO)
    published = json.loads(online.files(REPO)["run.json"])
    assert published["settings"] == {"train_file": ["corpus.txt"], "hub_token": "[redacted]", "train_tokenizer": 300}
    assert published["base_model"] == "[local path]"
    assert published["metrics"] == RECORD["metrics"]
    assert (run_dir / "run.json").read_bytes() == before


def test_published_card_names_the_repository(online: HubServer, run_dir: Path) -> None:
    push(run_dir, REPO)
    assert f'lmtasks predict {REPO} "..."' in online.files(REPO)["README.md"].decode()
    assert "REPO_OR_FOLDER" in (run_dir / "README.md").read_text()


def test_the_picture_of_the_card_goes_along(online: HubServer, run_dir: Path) -> None:
    (run_dir / "learning_curve.svg").write_text("<svg/>")
    push(run_dir, REPO)
    assert online.files(REPO)["learning_curve.svg"] == b"<svg/>"
    assert set(online.files(REPO)) == MODEL_FILES | RUN_FILES | {"learning_curve.svg"}


def test_a_figure_on_a_split_of_the_hub_goes_along_in_its_own_format(online: HubServer, run_dir: Path) -> None:
    _edit_record(run_dir, settings={"dataset_name": "someone/eli5", "validation_split": "test"})
    push(run_dir, REPO)
    (entry,) = parse_eval_result_entries(yaml.safe_load(online.files(REPO)[".eval_results/lmtasks.yaml"]))
    assert (entry.dataset_id, entry.value) == ("someone/eli5", RECORD["metrics"]["perplexity"])


def test_files_that_are_not_published_are_named(
    online: HubServer, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _edit_record(run_dir, files=["model.safetensors", "modeling_odd.py"])
    push(run_dir, REPO)
    assert "modeling_odd.py" in caplog.text
    assert "modeling_odd.py" not in online.files(REPO)


def test_sharded_weights_and_chat_templates_are_part_of_a_model(online: HubServer, run_dir: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    names = [*shards, "chat_template.jinja", "additional_chat_templates/tools.jinja"]
    (run_dir / "additional_chat_templates").mkdir()
    for name in names:
        (run_dir / name).write_text(name)
    _edit_record(run_dir, files=names)
    push(run_dir, REPO)
    assert set(online.files(REPO)) == RUN_FILES | set(names)


def test_uploads_only_what_exists_of_the_reports(online: HubServer, run_dir: Path) -> None:
    (run_dir / "train_results.json").unlink()
    (run_dir / "README.md").unlink()
    push(run_dir, REPO)
    assert set(online.files(REPO)) == MODEL_FILES | RUN_FILES - {"train_results.json", "README.md"}


def test_the_loopback_hub_notices_a_secret_that_travels(online: HubServer) -> None:
    """Or the tests above would prove nothing."""
    from huggingface_hub import CommitOperationAdd, HfApi

    for content in (LEAKED, "see /home/someone/x"):
        HfApi().create_repo(REPO, exist_ok=True)
        HfApi().create_commit(REPO, [CommitOperationAdd("notes.txt", content.encode())], commit_message="oops")
        with pytest.raises(AssertionError, match="travelled in"):
            online.assert_no_secret_travelled("/home/someone")
        online.requests.clear()
        online.repos.clear()


# Where it arrives


def test_repository_is_private_on_request(online: HubServer, run_dir: Path) -> None:
    push(run_dir, REPO, private=True)
    assert online.received("POST /api/repos/create")[0].json["visibility"] == "private"
    assert online.repos[REPO].private


def test_visibility_is_the_accounts_default_otherwise(online: HubServer, run_dir: Path) -> None:
    push(run_dir, REPO)
    assert "visibility" not in online.received("POST /api/repos/create")[0].json


def test_private_run_does_not_go_to_an_existing_public_repository(online: HubServer, run_dir: Path) -> None:
    push(run_dir, REPO)
    commits = len(online.repos[REPO].commits)
    with pytest.raises(InputError, match=f"{REPO} exists and is public"):
        push(run_dir, REPO, private=True)
    assert len(online.repos[REPO].commits) == commits


def test_private_again(online: HubServer, run_dir: Path) -> None:
    assert push(run_dir, REPO, private=True) == push(run_dir, REPO, private=True)


def test_pull_request(online: HubServer, run_dir: Path) -> None:
    url = push(run_dir, REPO, create_pr=True)
    assert url == f"{online.endpoint}/{REPO}/discussions/1"
    assert online.received("POST .*/commit/")[0].query["create_pr"] == ["1"]
    assert online.files(REPO) == {}
    assert set(online.files(REPO, "refs/pr/1")) == MODEL_FILES | RUN_FILES


def test_branch_is_made_and_used_again(online: HubServer, run_dir: Path) -> None:
    push(run_dir, REPO, revision="seed/1")
    push(run_dir, REPO, revision="seed/1")
    assert online.files(REPO) == {}
    assert set(online.files(REPO, "seed/1")) == MODEL_FILES | RUN_FILES


def test_pushing_twice_commits_only_what_changed(online: HubServer, run_dir: Path) -> None:
    first = push(run_dir, REPO)
    assert push(run_dir, REPO) == first
    (run_dir / "eval_results.json").write_text('{"eval_loss": 2.25}')
    assert push(run_dir, REPO) != first
    assert online.files(REPO)["eval_results.json"] == b'{"eval_loss": 2.25}'
    assert len(online.received("PUT /lfs-storage")) == 1
    assert [request.status for request in online.received("POST /api/repos/create")] == [200, 409, 409]


def test_name_alone_means_ones_own_namespace(online: HubServer, run_dir: Path) -> None:
    push(run_dir, "tiny-model")
    assert set(online.files("someone/tiny-model")) == MODEL_FILES | RUN_FILES


@pytest.mark.parametrize(
    ("given", "sent"), [(None, "Model trained with lmtasks 0.1.0"), ("With more data", "With more data")]
)
def test_commit_message(online: HubServer, run_dir: Path, given: str | None, sent: str) -> None:
    push(run_dir, REPO, commit_message=given)
    repo = online.repos[REPO]
    assert repo.messages[repo.refs["main"]] == sent


def test_works_where_tokens_are_not_sent_unasked(
    online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    push(run_dir, REPO)
    assert online.received("POST .*/commit/")[0].token == online.token


# What cannot be published: exit 2, and the Hub hears nothing of it


def _assert_refused(hub: HubServer, run_dir: Path, match: str, hint: str = "", **options: Any) -> None:
    with pytest.raises(InputError, match=match) as refusal:
        push(run_dir, options.pop("repo_id", REPO), **options)
    assert hint in refusal.value.hint
    assert hub.requests == []


@pytest.mark.parametrize("repo_id", ["a/b/c", "no spaces", "someone/--x", "../x", "", "x.git", "someone/model "])
def test_invalid_repository_id(online: HubServer, run_dir: Path, repo_id: str) -> None:
    _assert_refused(online, run_dir, "cannot be the id of a repository", "NAMESPACE/NAME", repo_id=repo_id)


def test_offline(online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _assert_refused(online, run_dir, "HF_HUB_OFFLINE", "lmtasks push")


def test_no_token(online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    _assert_refused(online, run_dir, "without a Hub token", "hf auth login")


def test_missing_folder(online: HubServer, tmp_path: Path) -> None:
    _assert_refused(online, tmp_path / "nowhere", "no such run folder: .*nowhere", "lmtasks push RUN REPO_ID")


def test_folder_that_is_no_run(online: HubServer, tmp_path: Path) -> None:
    _assert_refused(online, tmp_path, "is not the folder of a run: it has no run.json", "lmtasks push RUN REPO_ID")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_unreadable_record(online: HubServer, run_dir: Path, content: bytes) -> None:
    (run_dir / "run.json").write_bytes(content)
    _assert_refused(online, run_dir, "run.json cannot be read")


@pytest.mark.parametrize("record", ['{"status": "running"}', "{}", "[]"])
def test_unfinished_run(online: HubServer, run_dir: Path, record: str) -> None:
    (run_dir / "run.json").write_text(record)
    _assert_refused(online, run_dir, "is not done: its status is '(running|unknown)'", "finish the run")


def test_listed_file_that_is_missing(online: HubServer, run_dir: Path) -> None:
    (run_dir / "model.safetensors").unlink()
    _assert_refused(online, run_dir, "model.safetensors is missing", "as the run left it")


@pytest.mark.parametrize("files", [None, [], ["config.json"], ["checkpoints/checkpoint-1/model.safetensors"]])
def test_record_that_lists_no_weights(online: HubServer, run_dir: Path, files: list[str] | None) -> None:
    _edit_record(run_dir, files=files)
    _assert_refused(online, run_dir, "lists no weights", "as the run left it")


@pytest.mark.parametrize("name", ["config.json", "README.md"])
@pytest.mark.parametrize("target", ["/etc/hostname", ".env"])
def test_links_are_not_followed(online: HubServer, run_dir: Path, name: str, target: str) -> None:
    (run_dir / ".env").write_text("PASSWORD=1")
    (run_dir / name).unlink()
    (run_dir / name).symlink_to(target)
    _assert_refused(online, run_dir, f"{name} is a link", "put the file itself")


@pytest.mark.parametrize("name", ["README.md", "tokenizer_config.json", "all_results.json"])
def test_file_that_holds_a_token(online: HubServer, run_dir: Path, name: str) -> None:
    with (run_dir / name).open("a") as file:
        file.write(f"\n{LEAKED}\n")
    _assert_refused(online, run_dir, f"{name} holds what looks like a Hub token", "revoke")


def test_pull_request_to_another_branch(online: HubServer, run_dir: Path) -> None:
    _assert_refused(online, run_dir, "branch 'main'", "--create_pr", create_pr=True, revision="other")


def test_check_before_a_long_run(online: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    check_can_push(REPO)
    with pytest.raises(InputError, match="cannot be the id"):
        check_can_push("not an id")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="without a Hub token"):
        check_can_push(REPO)
    assert online.requests == []


# A run that is replaced meanwhile


def _replaced(run_dir: Path) -> None:
    """What another run does to the folder that it takes over."""
    _edit_record(run_dir, status="running")
    (run_dir / "model.safetensors").write_bytes(b"half a model")


def test_a_run_that_is_replaced_before_it_is_sent_is_not_sent(
    online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = publishing._repository

    def meanwhile(*arguments: Any) -> str:
        _replaced(run_dir)
        return found(*arguments)

    monkeypatch.setattr(publishing, "_repository", meanwhile)
    with pytest.raises(InputError, match="is not finished"):
        push(run_dir, REPO)
    assert online.files(REPO) == {}


def test_no_run_begins_in_a_folder_while_it_is_sent(
    online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub reads weights when it sends them."""
    sent, whole = publishing.HfApi.create_commit, (run_dir / "model.safetensors").read_bytes()

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(InputError, match="is in use"), reserved(run_dir):
            _replaced(run_dir)
        return sent(*arguments, **named)

    monkeypatch.setattr(publishing.HfApi, "create_commit", meanwhile)
    push(run_dir, REPO)
    assert online.files(REPO)["model.safetensors"] == whole
    assert not (run_dir / ".lock").exists()
    with reserved(run_dir):  # a run publishes itself
        push(run_dir, REPO)
        assert (run_dir / ".lock").exists()


def test_a_folder_that_a_run_has_is_not_published(online: HubServer, run_dir: Path) -> None:
    with reserved(run_dir):
        (run_dir / ".lock").write_text("1")  # as if another process had it
        _assert_refused(online, run_dir, "is in use: process 1 runs there", "wait until it is done")


@pytest.mark.parametrize("arrives", [True, False])
def test_without_locks_a_run_that_is_replaced_while_it_is_sent_is_told(
    arrives: bool, online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = publishing.HfApi.create_commit

    def meanwhile(*arguments: Any, **named: Any) -> Any:
        _replaced(run_dir)
        if not arrives:
            (run_dir / "model.safetensors").unlink()
        return sent(*arguments, **named)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(publishing.HfApi, "create_commit", meanwhile)
    error, says = (RunError, "may hold parts of both") if arrives else (InputError, "is not finished")
    with pytest.raises(error, match=says):
        push(run_dir, REPO)


# What the Hub does not let happen: exit 3, with the command to try again


@pytest.mark.parametrize(
    ("where", "status", "message", "hint"),
    [
        ("POST /api/repos/create", 401, "does not accept the token", "hf auth login"),
        ("POST /api/repos/create", 403, "does not let this token write here", "write access"),
        ("POST /api/repos/create", 500, "the Hub failed", "try again later"),
        ("POST .*/preupload/", 404, "does not know this repository", "check the id"),
        ("POST .*/objects/batch", 403, "does not let this token write here", "write access"),
        ("PUT /lfs-storage", 403, "does not let this token write here", "write access"),
        ("POST .*/commit/", 401, "does not accept the token", "hf auth login"),
        ("POST .*/commit/", 412, "busy with another change", "try again"),
        ("POST .*/commit/", 418, "did not accept the request", "put it right"),
        ("POST .*/commit/", 429, "limits the rate", "wait"),
        ("POST .*/commit/", 503, "the Hub failed", "try again later"),
    ],
)
def test_refusals_of_the_hub(
    online: HubServer, run_dir: Path, where: str, status: int, message: str, hint: str
) -> None:
    online.fail_next(where, status)
    with pytest.raises(RunError, match=message) as failure:
        push(run_dir, REPO)
    assert REPO in failure.value.message and str(status) in failure.value.message
    assert hint in failure.value.hint
    assert failure.value.hint.endswith(f": lmtasks push {run_dir} {REPO}")
    assert "\n" not in str(failure.value)
    assert len(online.received("POST .*/commit/")) <= 1


def test_wrong_token(online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "somebodyelse" * 3)
    with pytest.raises(RunError, match=r"does not accept the token .*401.*Invalid credentials"):
        push(run_dir, REPO)
    assert online.repos == {}


def test_namespace_of_somebody_else(online: HubServer, run_dir: Path) -> None:
    with pytest.raises(RunError, match="rights to create a model under the namespace other"):
        push(run_dir, "other/model")


def test_command_to_try_again_has_every_option(online: HubServer, run_dir: Path) -> None:
    online.fail_next("POST /api/repos/create", 500)
    with pytest.raises(RunError) as failure:
        push(run_dir, REPO, private=True, revision="v2", commit_message="Second try")
    command = f"lmtasks push {run_dir} {REPO} --private --revision v2 --commit_message 'Second try'"
    assert failure.value.hint.endswith(command)


def test_hub_that_cannot_be_reached(online: HubServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as gone:
        pass
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", gone.endpoint)
    with pytest.raises(RunError, match="cannot reach the Hub") as failure:
        push(run_dir, REPO)
    assert f"lmtasks push {run_dir} {REPO}" in failure.value.hint


def test_lost_answer_to_a_commit_is_not_sent_again(online: HubServer, run_dir: Path) -> None:
    online.drop_next("POST .*/commit/")
    with pytest.raises(RunError, match="publishing did not finish") as failure:
        push(run_dir, REPO)
    assert "not sent again" in failure.value.hint
    assert len(online.received("POST .*/commit/")) == 1
    push(run_dir, REPO)
    assert len(online.received("POST .*/commit/")) == 1, "the commit had arrived"


def test_lost_answer_to_a_pull_request_says_to_look_first(online: HubServer, run_dir: Path) -> None:
    online.drop_next("POST .*/commit/")
    with pytest.raises(RunError) as failure:
        push(run_dir, REPO, create_pr=True)
    assert "look for the pull request" in failure.value.hint
    assert online.repos[REPO].pull_requests == ["refs/pr/1"]


def test_card_with_broken_metadata(online: HubServer, run_dir: Path) -> None:
    (run_dir / "README.md").write_text("---\ntags: [unclosed\n---\n\nA card.\n")
    with pytest.raises(RunError, match=r"Invalid metadata in README.md.*mapping"):
        push(run_dir, REPO)
    assert online.files(REPO) == {}
