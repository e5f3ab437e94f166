"""Documents that are nearly the same, and such that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from lmtasks_near_duplicates import Unlike, stretches

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_corpus

FIRST = "The committee met in the town hall on Monday and talked about the new bridge over the river for two hours. "
OTHER = "Nobody had expected snow in May, least of all the gardeners, who had planted their tomatoes the week before. "
TEXTS = [FIRST, FIRST.upper().replace(" ", "\n"), FIRST.replace("two", "three"), OTHER, FIRST + OTHER, "short", "shorn"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_what_is_nearly_the_same_is_left_out() -> None:
    data = DataSettings(eval_dataset=TEXTS, filter="lmtasks_near_duplicates:Unlike")
    for _ in range(2):
        split = load_corpus(data).evaluation
        kept = [text for batch in split.texts() for text in batch]
        assert kept == [FIRST, OTHER, FIRST + OTHER, "short", "shorn"], (
            "each corpus is looked at by a filter of its own"
        )
        assert dict(split.dropped) == {"filter": 2}


def test_stretches() -> None:
    assert stretches("Ab  cd\nE") == {b"ab cd", b"b cd ", b" cd e"}
    assert stretches("火") == {"火".encode()}


def test_a_text_in_another_script() -> None:
    unlike = Unlike()
    text = "春はあけぼの。やうやう白くなりゆく山ぎは、すこしあかりて、紫だちたる雲のほそくたなびきたる。"
    assert [unlike(one) for one in (text, text + "。", text[:20])] == [True, False, True]
