"""Conversations in the chat template of their tokenizer, each a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from lmtasks import InputError
from lmtasks.api import Blocks
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_corpus
from lmtasks.data.text.chat import rendered

# As ChatML writes it, with the tokens that tiny tokenizers have, and a beginning of text.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no role ' + message.role) }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}{{ eos_token }}\n{% endfor %}"
)
HUB = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello\nyou", "tool_calls": None}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello\nyou"}]
END = "<|endoftext|>"
TEXT = f"[user] Hi{END}\n[assistant] Hello\nyou"


@pytest.fixture
def tokenizer(model_folders: dict[str, Path]) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model_folders["gpt2"])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    monkeypatch.chdir(tmp_path)


def texts(tokenizer: Any, blocks: Blocks | None = None, **data: Any) -> list[str]:
    blocks = blocks or Blocks(size=8)

    def render(rows: datasets.Dataset, column: str, source: str) -> datasets.Dataset:
        return rendered(rows, column, tokenizer, blocks, source)

    split = load_corpus(DataSettings(chat=True, **data), render=render).evaluation
    return [text for batch in split.texts() for text in batch]


@pytest.mark.parametrize(("column", "turns"), [("messages", HUB), ("conversations", SHAREGPT), ("turns", HUB)])
def test_every_source_gives_the_text_of_the_template(tokenizer: Any, column: str, turns: Any) -> None:
    more = {"text_column": "turns"} if column == "turns" else {}
    rows = [{"id": "a", column: turns}, {"id": "b", column: turns[:1]}]
    right = [f"{END}{TEXT}{END}\n", f"{END}[user] Hi{END}\n"]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert texts(tokenizer, validation_file=["a.jsonl"], **more) == right
    table = datasets.Dataset.from_list(rows)
    table.to_parquet("a.parquet")
    assert texts(tokenizer, validation_file=["a.parquet"], **more) == right
    assert texts(tokenizer, eval_dataset=table, **more) == right


def test_what_the_recipe_puts_around_a_document_is_not_there_twice(tokenizer: Any) -> None:
    rows = datasets.Dataset.from_list([{"messages": HUB}])
    end = tokenizer.eos_token_id
    framed = Blocks(size=8, document_start=(tokenizer.bos_token_id,), document_end=(end,))
    assert texts(tokenizer, framed, eval_dataset=rows) == [TEXT]
    assert texts(tokenizer, Blocks(size=8, document_end=(end,)), eval_dataset=rows) == [END + TEXT]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{"role": "ghost", "content": "x"}], "the chat template refuses row 2 of a.jsonl: no role ghost"),
        ([{"who": "me"}], "a turn in row 2 of a.jsonl has neither role and content nor from and value"),
        ("text", "row 2 of a.jsonl is no conversation"),
        ([], "row 2 of a.jsonl is no conversation: it holds no list of turns"),
        (None, "row 2 of a.jsonl has no text (null)"),
    ],
)
def test_rows_that_are_no_conversation(tokenizer: Any, turns: Any, message: str) -> None:
    rows = [{"messages": HUB}, {"messages": turns}]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError) as caught:
        texts(tokenizer, validation_file=["a.jsonl"])
    assert message in caught.value.message


def test_no_column_of_conversations(tokenizer: Any) -> None:
    Path("a.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl has no column of conversations: it has text"):
        texts(tokenizer, validation_file=["a.jsonl"])


def test_a_run_on_conversations_trains_on_the_text_of_the_template(
    lmtasks: Any, tokenizer: Any, model_folders: dict[str, Path]
) -> None:
    Path("chat.jsonl").write_text((json.dumps({"conversations": SHAREGPT}) + "\n") * 40)
    run = f"run causal-lm --model {model_folders['gpt2']} --train_file chat.jsonl --chat --block_size 16 --dry_run"
    assert "--chat needs a tokenizer with a chat template" in lmtasks(*run.split()).err
    tokenizer.save_pretrained("tokenizer")
    plan = lmtasks(*run.split(), "--tokenizer_name", "tokenizer", "--json")
    tokens = len(tokenizer(f"{END}{TEXT}{END}", add_special_tokens=False)["input_ids"])
    assert json.loads(plan.out)["train"]["tokens"] == 38 * tokens
