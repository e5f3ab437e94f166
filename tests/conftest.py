"""What all tests share: tiny real models and tokenizers, made here, and a world without a network."""

import os
import shutil
import tempfile

# Before anything imports the Hugging Face libraries, which read these once.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lmtasks-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ["HF_HOME"]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny models are ten times slower when threads wait for each other on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from scanner import SUITE_TOKEN, findings, secrets_in
from tiny_shape import TINY

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.app import main
from lmtasks.data.sample import sample_documents
from lmtasks.models.tokenizer import train_tokenizer

os.environ["HF_TOKEN"] = SUITE_TOKEN
# tox sets it, and what commands tell would be fitted to it.
os.environ.pop("COLUMNS", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """After each test its folder is scanned for the token of the suite, and for its own path in what is published."""
    yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if isinstance(folder, Path) and (found := findings(folder, paths=[str(folder)])):
        pytest.fail("what was written must not be there:\n" + "\n".join(found), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What a test prints and logs, and what a failed one says, is scanned as well."""
    report: Any = yield
    said = "\n".join([*(text for _, text in report.sections), str(report.longrepr or "")])
    if found := secrets_in(said.encode(errors="replace")):
        report.outcome, report.longrepr = "failed", f"the token {found[0][:8]}... was printed or logged"
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_secret_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end, the folders that tests share and the caches are scanned."""
    yield
    shared = [path for path in tmp_path_factory.getbasetemp().iterdir() if not path.name.startswith("test_")]
    assert [line for folder in (*shared, Path(os.environ["HF_HOME"])) for line in findings(folder)] == []


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def lmtasks(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process: ``lmtasks("run", "masked-lm", "--max_steps", 3)``."""

    def call(*words: Any) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        captured = capfd.readouterr()
        assert not secrets_in(f"{captured.out}{captured.err}".encode()), "a command has printed the token"
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """A hundred short real texts."""
    return [document[:2000] for document in sample_documents("python")[:100]]


@pytest.fixture(scope="session")
def text_file(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of them in a text file."""
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n".join(documents[:30]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def masked_tokenizer(documents: list[str]) -> transformers.PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of 400 tokens with a mask."""
    return train_tokenizer([documents], 400, MASKED_LM.tokenizer)


@pytest.fixture(scope="session")
def causal_tokenizer(documents: list[str]) -> transformers.PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of 400 tokens with an end of text."""
    return train_tokenizer([documents], 400, CAUSAL_LM.tokenizer)


OTHERS: dict[str, dict[str, Any]] = {
    "electra": {**TINY, "embedding_size": 16},
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 66,
    },
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
}
"""Shapes of models that are unlike the usual ones: a small embedding, an encoder before the decoder, two streams."""


def _saved(folder: Path, model_class: Any, config: Any, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    for role in ("pad", "bos", "eos", "mask"):
        if getattr(tokenizer, f"{role}_token_id", None) is not None:
            setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
    model_class.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folders(
    tmp_path_factory: pytest.TempPathFactory,
    masked_tokenizer: transformers.PreTrainedTokenizerBase,
    causal_tokenizer: transformers.PreTrainedTokenizerBase,
) -> dict[str, Path]:
    """Folders of tiny saved models with their tokenizers, by model type. Do not write to them."""
    root = tmp_path_factory.mktemp("models")
    masked, causal = transformers.AutoModelForMaskedLM, transformers.AutoModelForCausalLM
    made = {}
    for kind in ("roberta", "bert", "distilbert", "modernbert", "gpt2", "llama"):
        encoder = kind not in ("gpt2", "llama")
        tokenizer = masked_tokenizer if encoder else causal_tokenizer
        shape = dict(TINY, n_positions=64) if kind == "gpt2" else TINY
        config = transformers.AutoConfig.for_model(kind, **shape, vocab_size=len(tokenizer))
        made[kind] = _saved(root / kind, masked if encoder else causal, config, tokenizer)
    return made


@pytest.fixture(scope="session")
def all_model_folders(
    model_folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    masked_tokenizer: transformers.PreTrainedTokenizerBase,
    causal_tokenizer: transformers.PreTrainedTokenizerBase,
) -> dict[str, Path]:
    """The same and three more, which not every command takes: xlnet is a causal model that looks ahead."""
    root = tmp_path_factory.mktemp("others")
    made = dict(model_folders)
    for kind, shape in OTHERS.items():
        tokenizer = causal_tokenizer if kind == "xlnet" else masked_tokenizer
        model_class = transformers.AutoModelForCausalLM if kind == "xlnet" else transformers.AutoModelForMaskedLM
        config = transformers.AutoConfig.for_model(kind, **shape, vocab_size=len(tokenizer))
        made[kind] = _saved(root / kind, model_class, config, tokenizer)
    return made


@pytest.fixture(scope="session")
def sharp(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models with weights so large that every token of the context matters. Do not write to them."""
    root, made = tmp_path_factory.mktemp("sharp"), {}
    for kind, folder in model_folders.items():
        causal = kind in ("gpt2", "llama")
        model_class = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
        model = model_class.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 8 if parameter.ndim == 2 else 1
        made[kind] = root / kind
        model.save_pretrained(made[kind])
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(made[kind])
    return made


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium: the tox environment's own, or the system's where that cannot be fetched."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="tox run -e browser,site has it")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        system = None if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        chromium = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield chromium
        chromium.close()
