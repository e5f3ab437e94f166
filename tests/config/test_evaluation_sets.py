"""Names of evaluation sets and of their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtasks.config.evaluation_sets import check_names, files_by_set, in_set, set_names, set_of
from lmtasks.errors import InputError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_values_with_one_name_are_one_set_in_the_order_of_the_first() -> None:
    values = ["wiki=a.txt", "code=src", "wiki=b*.txt"]
    assert files_by_set(values) == {"wiki": ["a.txt", "b*.txt"], "code": ["src"]}


def test_values_without_a_name_are_one_set() -> None:
    assert files_by_set(["a.txt", "b/"]) == {"": ["a.txt", "b/"]}


def test_a_path_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "k=v.txt").write_text("x")
    (tmp_path / "year=2024").mkdir()
    (tmp_path / "year=2024" / "a.txt").write_text("x")
    literal = ["k=v.txt", "year=2024/*.txt", "year=2024", "data/year=2023/*.txt", "./k=x.txt"]
    assert files_by_set(literal) == {"": literal}
    # Of a file with = in its own name, the first one ends the set's.
    assert files_by_set(["set=k=v.txt"]) == {"set": ["k=v.txt"]}


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        (["a=x", "y"], "y has no name, and 'a' has one", "NAME=FILE, or none"),
        (["a="], "a=: no file follows the name", "NAME=FILE"),
        (["=x"], "=x: no name stands before", "NAME=FILE"),
        (["a b=x"], "cannot be called 'a b'", "letters, digits"),
        (["loss=x"], "cannot be called 'loss': there is a figure of that name", "letters"),
        (["sliding=x"], "cannot be called 'sliding'", "letters"),
        (["a=x", "a_sliding=y"], "figures of both would be called eval_a_sliding_loss", "another name"),
        (["a_unigram=x", "a=y"], "figures of both would be called eval_a_unigram_loss", "another name"),
    ],
)
def test_names_that_are_refused(values: list[str], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        files_by_set(values)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_a_recipes_own_views_are_no_names() -> None:
    check_names(["backwards"])
    with pytest.raises(InputError, match="'backwards': there is a figure"):
        check_names(["backwards"], views=["backwards"])
    with pytest.raises(InputError, match="cannot be called 3"):
        check_names([3])  # type: ignore[list-item]


def test_figures_find_back_to_their_sets() -> None:
    plain = ["eval_loss", "perplexity", "eval_targets", "sliding_loss", "sliding_targets", "sliding_log_likelihood"]
    figures = {in_set(figure, name): 0.0 for name in ("wiki", "wiki_de", "a-b") for figure in plain}
    figures |= dict.fromkeys(plain, 0.0)
    assert in_set("eval_loss", "wiki") == "eval_wiki_loss"
    assert set_names(figures) == ["wiki", "wiki_de", "a-b"]
    assert set_names(dict.fromkeys(plain, 0.0)) == []
    for name in ("wiki", "wiki_de", "a-b"):
        assert [set_of(in_set(figure, name), set_names(figures)) for figure in plain] == [(name, one) for one in plain]
    assert set_of("perplexity", set_names(figures)) == ("", "perplexity")
