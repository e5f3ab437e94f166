"""lmtasks in a notebook, which is executed: progress is plain lines there, for no terminal takes them back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = (
    "import lmtasks\nfrom lmtasks import progress\nprogress.PAUSE = 0.0",
    "run = lmtasks.run('causal-lm', train_file=['notes.txt'], output_dir='out', max_steps=40, max_eval_samples=2,\n"
    "                  samples_every=20)",
    "print(run.metrics['eval_targets'])\nlmtasks.score('out', 'A text.').value",
)


@pytest.mark.filterwarnings("default")  # those of the libraries that run notebooks
def test_a_run_in_a_notebook_speaks_in_lines(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A kernel is a process of its own, which has to find what this one has.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    (tmp_path / "notes.txt").write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, trained, told = (cell["outputs"] for cell in notebook["cells"])
    said = "".join(one["text"] for one in trained if one["output_type"] == "stream" and one["name"] == "stderr")
    lines = said.splitlines()
    assert "recipe     causal-lm: Continue a text, one token after the other." in lines
    assert any(line.startswith("training: ") and "/40 steps, " in line for line in lines)
    assert "samples at step 20" in lines
    assert "\x1b" not in said, "nothing that only a terminal understands"
    assert {one["output_type"] for one in told} == {"stream", "execute_result"}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebooks_of_the_documentation_do_what_they_show(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(path.parents[2]), os.environ.get("PYTHONPATH", "")]))
    shown = nbformat.read(path, as_version=4)
    again = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(again, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, after in zip(shown["cells"], again["cells"], strict=True):
        if before["cell_type"] == "code":
            kinds = [{one["output_type"] for one in cell["outputs"]} - {"stream"} for cell in (before, after)]
            assert kinds[0] == kinds[1]
