"""Long texts are tokenised in parts, with the tokens of the whole."""

from __future__ import annotations

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_segmentation import KINDS
from transformers import PreTrainedTokenizerBase

from lmtasks import Blocks, stream
from lmtasks.corpus import Split
from lmtasks.sample import sample_documents
from lmtasks.stream import parted, read

PROSE = " ".join(sample_documents("python")[5].split())[:3000]
LONG = {
    "prose": PROSE,
    "lines": "\n".join(PROSE[at : at + 60] for at in range(0, 3000, 60)),
    "many spaces": PROSE.replace(" ", "   ").replace(".", ".\n\n"),
    "Chinese": "我喜欢学习中文。今天天气很好，我们去公园玩吧！" * 40,
    "code": "def f(x):\n    return {x: [1, 2]}\n\n" * 60,
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST", 300)


def tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_parts_have_the_tokens_of_the_whole(kind: str, text: str) -> None:
    parts = parted(KINDS[kind], text)
    assert "".join(parts) == text
    assert [token for part in parts for token in tokens(KINDS[kind], part)] == tokens(KINDS[kind], text)
    if kind in ("wordpiece", "byte_level"):
        assert len(parts) >= 4
        assert max(map(len, parts)) < 450


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(alphabet="ab .,\n\t我é'1", min_size=400, max_size=900))
@settings(max_examples=40, deadline=None)
def test_any_text_may_be_parted(kind: str, text: str) -> None:
    parts = parted(KINDS[kind], text)
    assert "".join(parts) == text
    assert [token for part in parts for token in tokens(KINDS[kind], part)] == tokens(KINDS[kind], text)


def test_a_text_without_any_seam_stays_whole() -> None:
    assert parted(KINDS["byte_level"], "a" * 2000) == ["a" * 2000]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("documents", [False, True])
def test_documents_of_many_parts_keep_their_frames_and_words(
    words: bool, documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = KINDS["byte_level"]
    split = Split(datasets.Dataset.from_dict({"text": [PROSE, "short", PROSE[:700], PROSE[7:]]}), ("text",), documents)
    blocks = Blocks(size=8, document_start=(1,), document_end=(2, 3), words=words)
    in_parts = list(read(split, tokenizer, blocks))
    monkeypatch.setattr(stream, "LONGEST", 10**6)
    whole = list(read(split, tokenizer, blocks))
    assert len(in_parts) == len(whole)
    for one, other in zip(in_parts, whole, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        assert one.documents.tolist() == other.documents.tolist()
        assert (one.words is None) is (other.words is None) is not words
        assert one.words is None or other.words is None or one.words.tolist() == other.words.tolist()
