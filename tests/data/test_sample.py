"""The embedded corpora: real text, offline, the same every time."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lmtasks.data.sample import LONGEST, SAMPLES, SIZE, sample_documents
from lmtasks.errors import InputError


def test_the_corpus_holds_topics_and_sources() -> None:
    documents = sample_documents("python")
    assert any(document.startswith('The "assert" statement') for document in documents)
    library = Path(sysconfig.get_paths()["stdlib"])
    assert any(
        (library / name).read_text(encoding="utf-8") in documents for name in ("copy.py", "heapq.py", "bisect.py")
    )


def test_the_corpus_has_the_size_that_a_minute_needs() -> None:
    documents = sample_documents("python")
    assert SIZE <= sum(map(len, documents)) < SIZE + LONGEST
    assert max(map(len, documents)) <= LONGEST


def test_tables_and_installed_packages_are_left_out() -> None:
    documents = sample_documents("python")
    assert not any("build_time_vars" in document[:200] for document in documents), "differs between machines"
    assert Path(pytest.__file__).read_text(encoding="utf-8") not in documents


@pytest.mark.parametrize("name", SAMPLES)
def test_no_document_is_blank_and_none_comes_twice(name: str) -> None:
    documents = sample_documents(name)
    assert all(document.strip() for document in documents)
    assert len(set(documents)) == len(documents)


def test_order_does_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, sys; from lmtasks.data.sample import sample_documents; "
        "print(hashlib.sha256(repr([d[:99] for d in sample_documents('python')]).encode()).hexdigest(), "
        "sorted({'datasets', 'numpy', 'torch', 'pyarrow'} & set(sys.modules)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.endswith("[]\n"), "imports nothing heavy"


def test_unknown_corpus_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'python'") as caught:
        sample_documents("pythn")
    assert caught.value.hint == "the embedded corpora are python"


@pytest.mark.parametrize("name", SAMPLES)
def test_python_without_sources_is_bad_input(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(InputError, match="there are none in"):
        sample_documents(name)
