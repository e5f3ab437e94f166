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
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # its HTTP library's
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, not in __all__

from lmtasks.artifacts.eval_results import PLACE, eval_results
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.lock import kept
from lmtasks.artifacts.model_card import PLACEHOLDER
from lmtasks.artifacts.redact import HUB_TOKEN, redacted
from lmtasks.artifacts.run_folder import ABOUT_THE_RUN, RECORD, not_finished, record_bytes, require_intact, unsealed
from lmtasks.errors import InputError, RunError, in_one_line, nearest_path

logger = logging.getLogger(__name__)

_MODEL_FILES = (
    "config.json", "adapter_config.json", "generation_config.json", "model.safetensors.index.json", "*.safetensors",
)  # fmt: skip
"""Configuration and weights, as transformers loads them."""

_COMPANION_FILES = (
    "*/config.json", "*/generation_config.json", "*/model.safetensors.index.json", "*/model*.safetensors",
)  # fmt: skip
"""The same of what a recipe trains beside its model, in folders within."""

_PROCESSOR_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab*.json",
    "vocab*.txt", "*_vocab.json", "merges.txt", "bpe.codes", "dict.txt", "emoji.json", "normalizer.json",
    "byte_maps.json", "word_shape.json", "word_pronunciation.json", "prophetnet.tokenizer", "tokenizer.model",
    "spiece.model", "spm*.model", "sentencepiece*.model", "chat_template.jinja", "additional_chat_templates/*.jinja",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""Tokenizers and processors, by the file names that transformers' classes declare."""

LONGEST = 200
"""Characters of a name that any file system takes."""

PUBLISHED = (*_MODEL_FILES, *_COMPANION_FILES, *_PROCESSOR_FILES, *ABOUT_THE_RUN)
"""Patterns of the files that may be published; ``*`` stays within a folder."""

_REFUSALS = {
    401: ("does not accept the token", "log in with `hf auth login`, then"),
    402: ("asks for a paid plan", "settle that or choose another namespace, then"),
    403: ("does not let this token write here", "use a token with write access (`hf auth login`), then"),
    404: ("does not know this repository or namespace", "check the id, then"),
    409: ("is busy with another change", "try again"),
    412: ("is busy with another change", "try again"),
    429: ("limits the rate of requests", "wait a little, then"),
    500: ("failed", "try again later"),
}


@machine_failures()
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
        repo_id: ``NAMESPACE/NAME``, or ``NAME`` for one of your own.
        private: make a new repository private, and refuse an existing one that is public. Otherwise
            the account's or organisation's default applies to a new one.
        create_pr: open a pull request instead of changing the repository.
        revision: branch to publish to, made from ``main`` if it does not exist.

    Returns:
        Address of the pull request or the commit.

    Raises:
        InputError: not a finished run, a bad repository id, no token, offline, a file that must not
            be published, or a public repository where a private one was asked for.
        RunError: the Hub refused, failed or did not answer; the hint has the command to try again.
    """
    if create_pr and revision not in (None, "main"):
        raise InputError("a pull request is always made to the branch 'main'", "leave out --revision or --create_pr")
    _require_id(repo_id)
    options = {"private": private, "create_pr": create_pr, "revision": revision, "commit_message": commit_message}
    folder, command = Path(run_dir), _command(str(run_dir), repo_id, options)
    if (record := _finished_record(folder)).get("adapter"):
        require_shared_base(record.get("base_model"))
    require_intact(folder)
    check_can_push(repo_id)
    with kept(folder):
        return _push(folder, repo_id, command, private, create_pr, revision, commit_message)


def _push(
    folder: Path,
    repo_id: str,
    command: str,
    private: bool,
    create_pr: bool,
    revision: str | None,
    commit_message: str | None,
) -> str:
    before = record_bytes(folder)
    record = _finished_record(folder)
    require_intact(folder)
    content = _content(folder, record)
    # token=True: sent even where HF_HUB_DISABLE_IMPLICIT_TOKEN is set, as publishing needs one.
    api = HfApi(token=True, library_name="lmtasks")
    with _explained(repo_id, command, "cannot reach the Hub", "try again"):
        full_id = _repository(api, repo_id, private, revision)
    advice = "safe to repeat, files that arrived are not sent again"
    if create_pr:  # it may have arrived, and sending it again unasked could make a second one
        advice = f"look for the pull request of {repo_id} first; if it is not there"
    version = (record.get("versions") or {}).get("lmtasks", "")
    message = commit_message or f"Model trained with lmtasks {version}".strip()
    with _of_one_run(folder, before), _explained(repo_id, command, "publishing did not finish", advice):
        if isinstance(card := content.get("README.md"), bytes):
            content["README.md"] = card.replace(PLACEHOLDER.encode(), full_id.encode())
        files = [CommitOperationAdd(name, data) for name, data in content.items()]
        if record_bytes(folder) != before:
            raise not_finished(folder)
        commit = api.create_commit(full_id, files, commit_message=message, create_pr=create_pr, revision=revision)
    if record_bytes(folder) != before:  # where there are no locks
        raise RunError(
            f"another run began in {folder} while it was published: {repo_id} may hold parts of both",
            f"publish again when it is done: {command}",
        )
    return commit.pr_url or commit.commit_url


def check_can_push(repo_id: str) -> None:
    """Find out what can be known without asking the Hub, such as before a long training run.

    Raises:
        InputError: a bad repository id, offline mode, or no token.
    """
    _require_id(repo_id)
    if constants.HF_HUB_OFFLINE:
        raise InputError(
            "cannot publish offline: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            "unset it, or publish later with `lmtasks push`",
        )
    if not get_token():
        raise InputError("cannot publish without a Hub token", "log in with `hf auth login`, or set HF_TOKEN")


def _require_id(repo_id: Any) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        hint = "NAMESPACE/NAME of letters, digits, '-', '_' and '.', such as my-name/my-model"
        raise InputError(f"'{repo_id}' cannot be the id of a repository", hint) from error


def require_shared_base(base: str | None) -> None:
    """Refuse to publish an adapter for a model that lies in a folder, which nobody else has.

    Raises:
        InputError: says what to publish instead.
    """
    if base and Path(base).is_absolute():
        raise InputError(
            f"an adapter for '{base}' is of use to nobody who has not that folder",
            "lmtasks merge RUN OUT, and publish OUT; or train on a model from the Hub",
        )


def _finished_record(folder: Path) -> dict[str, Any]:
    """The record of the run in a folder, which must be complete."""
    path, usage = folder / RECORD, "lmtasks push RUN REPO_ID"
    if not folder.is_dir():
        raise InputError(f"no such run folder: {folder}{nearest_path(folder)}", usage)
    if not path.exists():
        raise InputError(f"{folder} is not the folder of a run: it has no run.json", usage)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}", usage) from error
    status = record.get("status", "unknown") if isinstance(record, dict) else "unknown"
    if status != "done":
        raise InputError(f"the run in {folder} is not done: its status is '{status}'", "finish the run, then push it")
    return dict(record)


@contextmanager
def _of_one_run(folder: Path, before: bytes) -> Iterator[None]:
    """Tell that another run began in the folder, where that is why publishing failed."""
    try:
        yield
    except RunError as error:
        if record_bytes(folder) != before:
            raise not_finished(folder) from error
        raise


def _content(folder: Path, record: Mapping[str, Any]) -> dict[str, bytes | Path]:
    """Everything that is published, by name: weights as paths, all else as the very bytes that were checked."""
    files = record.get("files")
    names = [name for name in (files if isinstance(files, list) else ()) if _may_be_published(name)]
    if not any(name.endswith(".safetensors") for name in names):
        raise InputError(f"{folder / RECORD} lists no weights to publish", "publish the folder as the run left it")
    names += [name for name in ABOUT_THE_RUN if (folder / name).exists()]
    content = {name: _checked(folder.resolve() / name) for name in names if name != RECORD}
    if results := eval_results(redacted(record)):
        content[PLACE] = results.encode()
    # The only file that lmtasks itself may have written private things into, and a published copy needs none.
    return content | {RECORD: (json.dumps(redacted(unsealed(record)), indent=2, ensure_ascii=False) + "\n").encode()}


def _may_be_published(name: Any) -> bool:
    text = str(name)
    plain = (
        text.isprintable()
        and len(text) < LONGEST
        and "\\" not in text
        and not any(part.startswith(".") for part in text.split("/"))
    )
    if plain and any(fnmatchcase(text, pattern) and text.count("/") == pattern.count("/") for pattern in PUBLISHED):
        return True
    logger.warning("not published, as it is no part of a model that lmtasks knows: %s", in_one_line(text[:LONGEST]))
    return False


def _checked(path: Path) -> bytes | Path:
    # A link may show an allowed name and hold anything, inside the folder as well as outside.
    if path.resolve() != path:
        raise InputError(f"{path} is a link, and only plain files are published", "put the file itself in its place")
    if not path.is_file():
        raise InputError(f"{path} is missing, though run.json lists it", "publish the folder as the run left it")
    if path.suffix == ".safetensors":
        return path
    content = path.read_bytes()
    if HUB_TOKEN.search(content.decode("utf-8", errors="replace")):
        raise InputError(f"{path} holds what looks like a Hub token", "take it out, and revoke the token")
    return content


def _command(run_dir: str, repo_id: str, options: Mapping[str, str | bool | None]) -> str:
    """The command line that asks for the same again."""
    words = ["lmtasks", "push", run_dir, repo_id]
    for name, value in options.items():
        if value:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _repository(api: HfApi, repo_id: str, private: bool, revision: str | None) -> str:
    """The full id of the repository, which now exists, with the branch that was asked for."""
    full_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
    if private and not api.model_info(full_id).private:
        hint = "make it private in its settings, or publish elsewhere"
        raise InputError(f"the repository {full_id} exists and is public, but --private was asked for", hint)
    if revision and revision != "main" and not revision.startswith("refs/"):
        api.create_branch(full_id, branch=revision, exist_ok=True)
    return str(full_id)


@contextmanager
def _explained(repo_id: str, command: str, silence: str, advice: str) -> Iterator[None]:
    """Turn all that huggingface_hub raises, in whichever of its ways, into what to do about it.

    Args:
        silence: what it comes to if the Hub did not answer, and
        advice: what to do before the same command then.
    """
    try:
        yield
    except (TransportError, OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError):
            problem, advice = f"the Hub does not accept the model: {said}", "put it right, then"
        elif answer := _answer(error):
            problem, advice = _refusal(answer, repo_id)
        else:
            problem = f"{silence}: {said}"
        raise RunError(problem, f"{advice}: {command}") from error


def _answer(error: BaseException | None) -> HfHubHTTPError | None:
    # Uploads of weights run in threads, which wrap the Hub's answer in an error of their own.
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _refusal(answer: HfHubHTTPError, repo_id: str) -> tuple[str, str]:
    status = answer.response.status_code
    problem, advice = _REFUSALS.get(min(status, 500), ("did not accept the request", "put it right, then"))
    detail = answer.server_message or answer.response.headers.get("X-Error-Message")
    return f"the Hub {problem} ({repo_id}, HTTP {status})" + (f": {detail}" if detail else ""), advice
