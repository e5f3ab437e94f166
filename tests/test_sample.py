"""The embedded corpora: real text, offline, the same every time."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest

from lmtasks.errors import InputError
from lmtasks.sample import SAMPLES, sample_documents


def test_documentation_holds_topics_and_docstrings() -> None:
    documents = sample_documents("python-docs")
    assert any(document.startswith('The "assert" statement') for document in documents)
    assert any("Generic (shallow and deep) copying operations." in document for document in documents)
    assert 1_000_000 < sum(map(len, documents)) < 6_000_000


def test_library_is_the_source_of_its_modules() -> None:
    documents = sample_documents("python-library")
    with open(f"{sysconfig.get_paths()['stdlib']}/copy.py", encoding="utf-8") as file:
        assert file.read() in documents
    assert 3_000_000 < sum(map(len, documents)) < 6_000_000
    assert not any("build_time_vars" in document[:200] for document in documents), "differs between machines"


@pytest.mark.parametrize("name", SAMPLES)
def test_no_document_is_blank_and_none_comes_twice(name: str) -> None:
    documents = sample_documents(name)
    assert all(document.strip() for document in documents)
    assert len(set(documents)) == len(documents)


def test_order_does_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, sys; from lmtasks.sample import sample_documents; "
        "print(hashlib.sha256(repr([d[:99] for d in sample_documents('python-docs')]).encode()).hexdigest(), "
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
    with pytest.raises(InputError, match="did you mean 'python-docs'") as caught:
        sample_documents("python-doc")
    assert caught.value.hint == "the embedded corpora are python-docs, python-library"


@pytest.mark.parametrize("name", SAMPLES)
def test_python_without_sources_is_bad_input(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(InputError, match="there are none in"):
        sample_documents(name)
