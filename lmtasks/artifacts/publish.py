"""Publishing a run on the Hub: what a model needs, and nothing else from its folder.

A run folder also holds checkpoints, logs, pickles and whatever its owner has put beside them. So
files are not left out by name, they are let in: :data:`PUBLISHED` is the whole list.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # its HTTP library's
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not in __all__

from lmtasks.artifacts.model_card import PLACEHOLDER
from lmtasks.artifacts.redact import HUB_TOKEN, redacted
from lmtasks.errors import InputError, LmtasksError, RunError

logger = logging.getLogger(__name__)

PUBLISHED = (
    # what transformers loads: configuration and weights
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "*.safetensors",
    # tokenizers and processors, by the file names that transformers' classes declare
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "vocab*.txt",
    "*_vocab.json",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "emoji.json",
    "normalizer.json",
    "byte_maps.json",
    "word_shape.json",
    "word_pronunciation.json",
    "prophetnet.tokenizer",
    "tokenizer.model",
    "spiece.model",
    "spm*.model",
    "sentencepiece*.model",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    # what lmtasks writes about the run
    "README.md",
    "run.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
)
"""Patterns of the files that may be published; ``*`` stays within a folder."""

_ABOUT_THE_RUN = ("README.md", "run.json", "all_results.json", "train_results.json", "eval_results.json")


@dataclass(frozen=True)
class _Request:
    """What somebody asked for, to carry it out and to say how to ask again."""

    run_dir: str
    repo_id: str
    private: bool
    create_pr: bool
    revision: str | None
    commit_message: str | None

    @property
    def command(self) -> str:
        words = ["lmtasks", "push", self.run_dir, self.repo_id]
        words += ["--private"] if self.private else []
        words += ["--create_pr"] if self.create_pr else []
        words += ["--revision", self.revision] if self.revision else []
        words += ["--commit_message", self.commit_message] if self.commit_message else []
        return shlex.join(words)


def push(
    run_dir: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Publish a finished run in a model repository of the Hub, which is created if need be.

    The run folder stays as it is: the published ``run.json`` is a copy without local paths and
    secrets, the published card names the repository. The token is the one of ``hf auth login`` or of
    the environment variable ``HF_TOKEN``.

    Args:
        run_dir: folder of a run.
        repo_id: ``NAMESPACE/NAME``, or ``NAME`` for one of your own.
        private: make a new repository private, and refuse an existing one that is public. Otherwise
            the account's or organisation's default applies to a new one.
        create_pr: open a pull request instead of changing the repository.
        revision: branch to publish to, made from ``main`` if it does not exist.
        commit_message: summary of the commit.

    Returns:
        Address of the pull request or the commit.

    Raises:
        InputError: not a finished run, a bad repository id, no token, offline, a file that must not
            be published, or a public repository where a private one was asked for.
        RunError: the Hub refused, failed or did not answer; the hint has the command to try again.
    """
    request = _Request(str(run_dir), repo_id, private, create_pr, revision, commit_message)
    _check_revision(request)
    record = _finished_record(Path(run_dir))
    check_can_push(repo_id)
    content = _content(Path(run_dir), record)
    return _publish(request, content, commit_message or _summary(record))


def check_can_push(repo_id: str) -> None:
    """Find out what can be known without asking the Hub, such as before a long training run.

    Raises:
        InputError: a bad repository id, offline mode, or no token.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        hint = "NAMESPACE/NAME of letters, digits, '-', '_' and '.', such as my-name/my-model"
        raise InputError(f"'{repo_id}' cannot be the id of a repository", hint) from error
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            "cannot publish offline: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            "unset it, or publish later with `lmtasks push`",
        )
    if not get_token():
        raise InputError("cannot publish without a Hub token", "log in with `hf auth login`, or set HF_TOKEN")


def _check_revision(request: _Request) -> None:
    if request.create_pr and request.revision not in (None, "main"):
        raise InputError("a pull request is always made to the branch 'main'", "leave out --revision or --create_pr")


def _finished_record(folder: Path) -> dict[str, Any]:
    """The record of the run in a folder, which must be complete."""
    if not folder.is_dir():
        raise InputError(f"no such run folder: {folder}", "lmtasks push RUN REPO_ID")
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not the folder of a run: it has no run.json", "lmtasks push RUN REPO_ID"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / 'run.json'} cannot be read: {error}", "lmtasks push RUN REPO_ID") from error
    if not isinstance(record, dict) or record.get("status") != "done":
        status = record.get("status", "unknown") if isinstance(record, dict) else "unknown"
        raise InputError(f"the run in {folder} is not done: its status is '{status}'", "finish the run, then push it")
    return record


def _content(folder: Path, record: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """What is published, by name: weights as paths, all else as the very bytes that were checked."""
    content: dict[str, bytes | Path] = {}
    for name in _names(folder, record):
        path = _plain_file(folder, name)
        content[name] = path if name.endswith(".safetensors") else _checked_bytes(path)
    # The only file that lmtasks itself may have written private things into, and a published copy needs none.
    content["run.json"] = (json.dumps(redacted(record), indent=2, ensure_ascii=False) + "\n").encode()
    return content


def _names(folder: Path, record: Mapping[str, Any]) -> list[str]:
    model_files = [name for name in record.get("files") or [] if _may_be_published(name)]
    if not any(name.endswith(".safetensors") for name in model_files):
        raise InputError(f"{folder / 'run.json'} lists no weights to publish", "publish the folder as the run left it")
    present = [name for name in _ABOUT_THE_RUN if name != "run.json" and (folder / name).exists()]
    return list(dict.fromkeys([*model_files, *present]))


def _may_be_published(name: Any) -> bool:
    text = str(name)
    if any(fnmatchcase(text, pattern) and text.count("/") == pattern.count("/") for pattern in PUBLISHED):
        return True
    logger.warning("not published, as it is no part of a model that lmtasks knows: %s", text)
    return False


def _plain_file(folder: Path, name: str) -> Path:
    path = folder.resolve() / name
    # A link may show an allowed name and hold anything, inside the folder as well as outside.
    if path.resolve() != path:
        raise InputError(f"{path} is a link, and only plain files are published", "put the file itself in its place")
    if not path.is_file():
        raise InputError(f"{path} is missing, though run.json lists it", "publish the folder as the run left it")
    return path


def _checked_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name != "run.json" and HUB_TOKEN.search(content.decode("utf-8", errors="replace")):
        raise InputError(f"{path} holds what looks like a Hub token", "take it out, and revoke the token")
    return content


def _summary(record: Mapping[str, Any]) -> str:
    version = (record.get("versions") or {}).get("lmtasks", "")
    return f"Model trained with lmtasks {version}".strip()


def _publish(request: _Request, content: Mapping[str, bytes | Path], message: str) -> str:
    # token=True: sent even where HF_HUB_DISABLE_IMPLICIT_TOKEN is set, as publishing needs one.
    api = HfApi(token=True, library_name="lmtasks")
    with _explained(request, nothing_sent=True):
        repo_id = _repository(api, request)
    with _explained(request, nothing_sent=False):
        commit = api.create_commit(
            repo_id,
            _operations(content, repo_id),
            commit_message=message,
            create_pr=request.create_pr,
            revision=request.revision,
        )
    return commit.pr_url or commit.commit_url


def _repository(api: HfApi, request: _Request) -> str:
    """The full id of the repository, which now exists, with the branch that was asked for."""
    repo_id = api.create_repo(request.repo_id, private=request.private or None, exist_ok=True).repo_id
    if request.private and not api.model_info(repo_id).private:
        hint = "make it private in its settings, or publish elsewhere"
        raise InputError(f"the repository {repo_id} exists and is public, but --private was asked for", hint)
    if request.revision and request.revision != "main" and not request.revision.startswith("refs/"):
        api.create_branch(repo_id, branch=request.revision, exist_ok=True)
    return str(repo_id)


def _operations(content: Mapping[str, bytes | Path], repo_id: str) -> list[CommitOperationAdd]:
    addressed = dict(content)
    if isinstance(card := addressed.get("README.md"), bytes):
        addressed["README.md"] = card.replace(PLACEHOLDER.encode(), repo_id.encode())
    return [CommitOperationAdd(name, data) for name, data in addressed.items()]


@contextmanager
def _explained(request: _Request, *, nothing_sent: bool) -> Iterator[None]:
    """Turn what huggingface_hub raises, in whichever of its ways, into what to do about it."""
    try:
        yield
    except (TransportError, OSError, RuntimeError, ValueError) as error:
        raise _explanation(error, request, nothing_sent) from error


def _explanation(error: BaseException, request: _Request, nothing_sent: bool) -> LmtasksError:
    if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError):
        return RunError(
            f"the Hub does not accept the model: {_one_line(error)}", f"put it right, then: {request.command}"
        )
    answer = _refusal(error)
    if answer is not None:
        return _refused(answer, request)
    if nothing_sent:
        return RunError(f"cannot reach the Hub: {_one_line(error)}", f"try again: {request.command}")
    return _unanswered(error, request)


def _refusal(error: BaseException | None) -> HfHubHTTPError | None:
    # Uploads of weights run in threads, which wrap the Hub's answer in an error of their own.
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _refused(error: HfHubHTTPError, request: _Request) -> RunError:
    status = error.response.status_code
    what, advice = _STATUS.get(status, ("did not accept the request", "put it right, then"))
    if status >= 500:
        what, advice = "failed", "try again later"
    answer = error.server_message or error.response.headers.get("X-Error-Message")
    detail = f": {answer}" if answer else ""
    return RunError(f"the Hub {what} ({request.repo_id}, HTTP {status}){detail}", f"{advice}: {request.command}")


_STATUS = {
    401: ("does not accept the token", "log in with `hf auth login`, then"),
    402: ("asks for a paid plan", "settle that or choose another namespace, then"),
    403: ("does not let this token write here", "use a token with write access (`hf auth login`), then"),
    404: ("does not know this repository or namespace", "check the id, then"),
    409: ("is busy with another change", "try again"),
    412: ("is busy with another change", "try again"),
    429: ("limits the rate of requests", "wait a little, then"),
}


def _unanswered(error: BaseException, request: _Request) -> RunError:
    """The commit may or may not have arrived, and sending it again unasked could make a second one."""
    if request.create_pr:
        advice = f"look for the pull request of {request.repo_id} first; if it is not there"
    else:
        advice = "safe to repeat, files that arrived are not sent again"
    return RunError(f"publishing did not finish: {_one_line(error)}", f"{advice}: {request.command}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
