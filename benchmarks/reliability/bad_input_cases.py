"""The catalogue of bad inputs: flags, YAML, files of every format, models, what is asked of models, and calls."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reliability.bad_inputs import Bad, Call, Prepare, Shelf

_SMALL = "--block_size 16 --max_steps 1 --use_cpu --output_dir out"
MASKED = f"run masked-lm --model @roberta {_SMALL}"
CAUSAL = f"run causal-lm --model @gpt2 {_SMALL}"
GOOD = f"{MASKED} --train_file good.txt"
FRESH = f"run causal-lm {_SMALL} --train_file good.txt --train_tokenizer 400"
OWN = f"{MASKED.replace('@roberta', 'model')} --train_file good.txt"


def catalogue() -> list[Bad]:
    """All bad inputs; no two have one name."""
    kinds = (commands, flags, settings_files, data_files, folders, models, overrides, outputs, predictions, calls)
    return [bad for kind in kinds for bad in kind()]


def writes(name: str, content: str | bytes) -> Prepare:
    """A file in the working directory."""

    def prepare(shelf: Shelf) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def both(*prepares: Prepare) -> Prepare:
    def prepare(shelf: Shelf) -> None:
        for one in prepares:
            one(shelf)

    return prepare


def commands() -> Iterator[Bad]:
    """Commands and what stands behind them."""
    for words in (
        "train masked-lm",
        "RUN masked-lm",
        "run",
        "run masked_lm --max_steps 1",
        "run nosuch:masked-lm",
        "run ./gone.py",
        "run good.txt",
        "run ''",
        "run masked-lm causal-lm",
        "run masked-lm -x",
        "run masked-lm -- --max_steps",
        "run masked-lm --plugin",
        "run masked-lm --plugin no.such.module",
        "run masked-lm --plugin good.txt",
        "run masked-lm --plugin ./gone.py",
        "data",
        "data masked-lm --examples -1",
        "data masked-lm --examples many",
        "data masked-lm --learning_rate 1 --examples x",
        "data masked-lm --train_file gone.txt",
        "data causal-lm --stride 0",
        "show",
        "show masked-lm causal-lm",
        "show nosuch",
        "show masked-lm --verbose",
        "schema",
        "schema nosuch",
        "schema masked-lm extra",
        "list masked-lm",
        "architectures nosuch",
        "architectures masked-lm bert",
        "architectures --all",
        "plugins all",
        "plugins --json --verbose",
        "doctor now",
        "doctor --fix",
        "new-plugin",
        "new-plugin 1abc",
        "new-plugin Shuffle!",
        "new-plugin ''",
        "new-plugin ../up",
        "new-plugin a b",
        "new-plugin lmtasks-shuffle --kind nosuch",
        "new-plugin lmtasks",
        "push",
        "push @run",
        "push @run 'not an id'",
        "push @run a/b/c",
        "push @run ../x",
        "push @gpt2 me/it",
        "push good.txt me/it",
        "push @run me/it --branch x",
        "push @run me/it",
        "merge",
        "merge @run",
        "merge @run new",
        "merge @gpt2 new",
        "merge ./gone new",
        "merge @run good.txt",
        "merge @run new --recipe nothing",
        "evaluate",
        "evaluate ./gone",
        "evaluate good.txt",
        "evaluate @gpt2",
        "evaluate @gpt2 --recipe nosuch --validation_file good.txt",
        "evaluate @gpt2 --recipe masked-lm --validation_file good.txt",
        "evaluate @gpt2 --validation_file gone.txt",
        "evaluate @gpt2 --validation_file good.txt --max_steps 1",
        "evaluate @gpt2 --validation_file good.txt --seed x",
        "evaluate @gpt2 --validation_file good.txt --revision v1",
        "evaluate @gpt2 --validation_file good.txt --block_size 67",
        "evaluate @gpt2 --validation_file good.txt --per_device_eval_batch_size 0",
        "evaluate @gpt2 --validation_file good.txt --per_device_eval_batch_size 99999999999999999999",
        "evaluate @gpt2 --validation_file good.txt --model @llama",
        "evaluate @gpt2 --validation_file good.txt more words",
        "evaluate @gpt2 --validation_file good.txt --config gone.yaml",
        "evaluate @run --train_file gone.txt",
        "evaluate @roberta --validation_file good.txt --recipe ./gone.py",
    ):
        yield Bad(f"typed: {words}", words)


def flags() -> Iterator[Bad]:
    """A wrong value for every option of a run that has a type with wrong values, and flags that do not go together."""
    for name, value in _wrong_values():
        # Given once: a second one would only count.
        base = GOOD.replace("--max_steps 1", "") if name == "max_steps" else GOOD
        base = base.replace("--block_size 16", "") if name == "block_size" else base
        yield Bad(f"flag: --{name} {value}", f"{base} --{name} '{value}'")
    long = "9" * 20
    for name in (
        "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "num_train_epochs",
        "block_size", "max_train_samples", "max_eval_samples", "min_chars", "max_chars", "split_seed", "data_seed",
        "save_total_limit", "dataloader_num_workers", "preprocessing_num_workers", "eval_accumulation_steps",
        "ddp_timeout",
    ):  # fmt: skip
        yield Bad(f"flag: --{name} of twenty digits", f"{GOOD} --{name} {long}")
    for words in (
        "--optim nosuch",
        "--lr_scheduler_type nosuch",
        "--lr_scheduler_kwargs '{\"nosuch\": 1}'",
        "--lr_scheduler_kwargs '{'",
        "--lr_scheduler_kwargs '[1]'",
        "--report_to nosuch",
        "--metric_for_best_model nosuch --eval_strategy steps",
        "--metric_for_best_model loss",
        "--greater_is_better true --metric_for_best_model loss --eval_strategy steps",
        "--load_best_model_at_end",
        "--save_strategy best",
        "--eval_strategy steps --eval_steps 0",
        "--fp16",
        "--tf32 true",
        "--adam_beta1 2",
        "--adam_beta2 -1",
        "--label_smoothing_factor 1.5",
        "--test_size 0.1 --validation_split_percentage 10",
        "--validation_file good.txt",
        "--validation_file ''",
        "--train_file ''",
        "--output_dir ''",
        "--validation_file a=",
        "--validation_file =good.txt",
        "--validation_file loss=gone.txt",
        "--text_column body",
        "--text_template '{'",
        "--text_template '{title}'",
        "--text_template plain",
        "--encoding nosuch",
        "--format nosuch",
        "--format parquet",
        "--format json",
        "--csv_separator ''",
        "--chat",
        "--filter nosuch",
        "--filter nosuch:function",
        "--filter json:nosuch",
        "--filter json:__doc__",
        "--min_chars 9 --max_chars 3",
        "--min_chars 999999",
        "--train_split trian",
        "--train_split 'train['",
        "--train_split 'train[:0]'",
        "--validation_split nosuch",
        "--dataset_name me/gone",
        "--dataset_config_name x",
        "--data gone.yaml",
        "--data good.txt",
        "--mask_unit letter",
        "--word_segmenter nosuch",
        "--word_segmenter nosuch --mask_unit word",
        "--isolate_documents",
        "--tokenizer_name ./gone",
        "--tokenizer_name @gpt2",
        "--tokenizer_name good.txt",
        "--train_tokenizer 400",
        "--add_tokens gone.txt",
        "--model_type roberta",
        "--config_name @gpt2",
        "--config_overrides hidden_size=8",
        "--revision v1",
        "--trust_remote_code --revision main",
        "--hub_token secret",
        "--token secret",
        "--use_auth_token secret",
        "--do_train false",
        "--dataloader_drop_last --max_train_samples 3",
        "--push_to_hub --hub_model_id me/it",
        "--use_peft --lora_r 0",
        "--use_peft --lora_r many",
        "--use_peft --lora_dropout 1",
        "--use_peft --lora_target_modules nothing",
        "--use_peft --lora_target_modules query valeu",
        "--use_peft --lora_modules_to_save nothing",
        "--use_peft --lora_task_type NOTHING",
        "--lora_alpha 3",
        "--use_dora",
        "--peft_config gone.yaml",
        "--peft_config good.txt",
        "--peft_config good.txt --lora_r 3",
        "--use_peft maybe",
        "--dtype float8",
        "--dtype float16",
        "--push_to_hub --hub_model_id 'me it'",
        "--overwrite_output_dir --resume_from_checkpoint true",
        "--stride 4",
        "--mlm",
        "--cache_dir x",
        "--streaming",
        "--deepspeed gone.json",
        "--fsdp nosuch",
        "--accelerator_config gone.json",
        "--neftune_noise_alpha x",
        "--torch_compile_mode nosuch",
    ):
        yield Bad(f"flag: {words}", f"{GOOD} {words}")


def _wrong_values() -> Iterator[tuple[str, str]]:
    """Options of masked-lm, each with a value of the wrong type, and one beyond each limit."""
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.config.request import groups_of

    for group in groups_of(MASKED_LM).values():
        for name, option in group.items():
            kinds = set(option.alternatives) - {types.NoneType}
            if option.python_only or str in kinds or Any in kinds or option.is_list:
                continue
            yield name, "nosuch"
            if kinds <= {int, float}:
                yield name, "nan"
                for key, limit in option.limits.items():
                    beyond = math.floor(limit) + (0 if key == "lt" else 1 if key == "le" else -1)
                    yield name, str(limit if key == "gt" else beyond)


def settings_files() -> Iterator[Bad]:
    """YAML files of settings and of mixes."""
    for name, content in {
        "empty": "",
        "a comment": "# seed: 1",
        "null": "null",
        "a list": "- seed",
        "a number": "42",
        "a text": "seed",
        "no YAML": "a: [1",
        "tabs": "a:\n\t- 1",
        "two documents": "seed: 1\n---\nseed: 2",
        "a number as text": 'seed: "42"',
        "a number as a block of text": "seed: |\n  42",
        "a fraction as text": "learning_rate: '1e-4'",
        "yes as text": "bf16: 'true'",
        "a list of a number": "seed: [1]",
        "a mapping for a number": "seed: {a: 1}",
        "a date for a number": "seed: 2024-01-01",
        "a time for a number": "seed: 1:30",
        "an octal number": "seed: 010",
        "a binary number": "seed: 0b11",
        "an endless number": "learning_rate: .inf",
        "no number": "learning_rate: .nan",
        "a name twice": "seed: 1\nseed: 2",
        "a name twice in other words": "train_split: train\ntrain-split: train",
        "a number for a name": "1: 2",
        "a list for a name": "[a]: 2",
        "a null for a name": "~: 2",
        "an unknown name": "sede: 1",
        "a tag of Python": "seed: !!python/object/apply:os.system ['true']",
        "an unknown tag": "seed: !nosuch 1",
        "bytes": "train_split: !!binary aGk=",
        "an unknown alias": "seed: *nosuch",
        "an alias of itself": "lr_scheduler_kwargs: &a {b: *a}",
        "a merge of nothing": "<<: *nosuch",
        "a bomb": "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]",
        "a control character": "seed: \x01",
        "control characters in a name": '"a\\0b": 1',
        "a surrogate": '"\\ud800": 1',
        "deeply nested": "seed: " + "[" * 3000,
        "a token": "hub_token: secret",
        "a dataset for Python only": "train_dataset: [a]",
        "a long number": "per_device_train_batch_size: 99999999999999999999",
    }.items():
        yield Bad(f"YAML: {name}", f"{GOOD} --config bad.yaml", writes("bad.yaml", content))
    for name, binary in {"zeros": bytes(99), "no UTF-8": b"\xff\xfe\x00", "half of UTF-16": b"\xff\xfes"}.items():
        yield Bad(f"YAML: {name}", f"{GOOD} --config bad.yaml", writes("bad.yaml", binary))
    yield Bad("YAML: a folder", f"{GOOD} --config folder", lambda shelf: Path("folder").mkdir())
    source = "{name: a, train_file: good.txt, weight: 1}"
    for name, content in {
        "empty": "",
        "no sources": "stopping_strategy: all_exhausted",
        "sources by name": "sources: {a: good.txt}",
        "a source as text": "sources: [good.txt]",
        "no name": "sources: [{train_file: good.txt, weight: 1}]",
        "no weight": "sources: [{name: a, train_file: good.txt}]",
        "no data": "sources: [{name: a, weight: 1}]",
        "a weight as text": "sources: [{name: a, train_file: good.txt, weight: '1'}]",
        "a weight below 0": "sources: [{name: a, train_file: good.txt, weight: -1}]",
        "an endless weight": "sources: [{name: a, train_file: good.txt, weight: .inf}]",
        "no weight at all": "sources: [{name: a, train_file: good.txt, weight: 0}]",
        "one name twice": f"sources: [{source}, {source}]",
        "the name of a figure": f"sources: [{source.replace('a,', 'loss,', 1)}]",
        "a name that is a list": "sources: [{name: [a], train_file: good.txt, weight: 1}]",
        "an unknown key": f"sources: [{source}]\nnosuch: 1",
        "an unknown key of a source": "sources: [{name: a, train_file: good.txt, weight: 1, nosuch: 1}]",
        "an unknown strategy": f"sources: [{source}]\nstopping_strategy: nosuch",
        "a file that is not there": f"sources: [{source.replace('good', 'gone')}]",
    }.items():
        yield Bad(f"mix: {name}", f"{MASKED} --data bad.yaml", writes("bad.yaml", content))


def data_files() -> Iterator[Bad]:
    """A file of each format, in each way damaged, empty, or without a text."""
    line = '{"text": "a line of text"}\n'
    texts: Mapping[str, Mapping[str, str | bytes]] = {
        "txt": {
            "empty": "",
            "blank": " \n\t\n",
            "zeros": bytes(500),
            "a program": b"\x7fELF\x02\x01" + bytes(range(256)),
            "no UTF-8": "une fête\n".encode("latin-1") * 9,
            "half of UTF-16": "text".encode("utf-16")[:-1],
            "surrogates": b"\xed\xa0\x80 text\n",
            "one letter": "a",
        },
        "csv": {
            "empty": "",
            "only a header": "text\n",
            "no header": "A sentence.\nAnother.\n",
            "two columns of a name": "text,text\na,b\n",
            "an open quotation mark": 'id,text\n1,"open\n2,b\n',
            "rows of other lengths": "id,text\n1,a,b\n2\n",
            "numbers": "a,b\n1,2\n3,4\n",
            "no name in the header": ",\na,b\n",
            "zeros": "text\n" + "\0" * 50,
            "no UTF-8": b"text\n\xff\xfe\xfa\n",
            "only separators": ",,,\n,,,\n",
        },
        "tsv": {"only a header": "id\ttext\n", "numbers": "a\tb\n1\t2\n"},
        "jsonl": {
            "empty": "",
            "blank": "\n\n",
            "cut": line + '{"text": "a li',
            "a list a line": "[1, 2]\n[3, 4]\n",
            "numbers": "1\n2\n",
            "null": "null\n",
            "a text a line": '"a"\n"b"\n',
            "single quotes": "{'text': 'a'}\n",
            "no comma": '{"text": "a" "b": 1}\n',
            "null for a text": '{"text": null}\n' * 4,
            "a number for a text": line + '{"text": 5}\n',
            "a mapping for a text": '{"text": {"a": {"b": 1}}}\n' * 3,
            "a column missing": line + '{"title": "b"}\n',
            "another column": '{"title": "a", "body": "b"}\n' * 3,
            "half a surrogate": '{"text": "\\ud800"}\n' * 9,
            "NaN": '{"text": NaN}\n' * 3,
            "deeply nested": '{"text": ' + "[" * 5000 + "\n",
            "zeros": bytes(99),
            "no UTF-8": b'{"text": "\xff"}\n',
            "a control character": '{"text": "a\x00\x01"}\n{"text": \n',
        },
        "json": {
            "empty": "",
            "an empty list": "[]",
            "an empty object": "{}",
            "a number": "5",
            "a text": '"text"',
            "a list of numbers": "[1, 2, 3]",
            "a list of lists": '[["a"], ["b"]]',
            "cut": '[{"text": "a"}, {"te',
            "a comma at the end": '[{"text": "a"},]',
            "two lists": '[{"text": "a"}] [{"text": "b"}]',
            "deeply nested": "[" * 5000,
        },
        "parquet": {"empty": "", "only its name": "PAR1", "a text": "text\n" * 9, "zeros": bytes(200)},
        "arrow": {"empty": "", "only its name": "ARROW1\0\0", "a text": "text\n" * 9, "zeros": bytes(200)},
        "fasta": {"empty": "", "only a header": ">a\n", "only headers": ">a\n>b\n", "zeros": bytes(99)},
        "docx": {"a kind that is not read": "text"},
        "pdf": {"a kind that is not read": "%PDF-1.4"},
        "zip": {"a kind that is not read": "PK\x03\x04"},
        "txt.gz": {"a text": "text\n", "empty": "", "cut": gzip.compress(b"text\n" * 999)[:-9]},
        "txt.bz2": {"a text": "text\n", "cut": bz2.compress(b"text\n" * 999)[:-9]},
        "txt.xz": {"a text": "text\n", "cut": lzma.compress(b"text\n" * 999)[:-9]},
        "txt.zst": {"a text": "text\n"},
        "jsonl.gz": {"no JSON within": gzip.compress(b"text\n" * 9), "nothing within": gzip.compress(b"")},
    }
    for suffix, contents in texts.items():
        for name, content in contents.items():
            yield Bad(f"{suffix}: {name}", f"{MASKED} --train_file b.{suffix}", writes(f"b.{suffix}", content))
    for kind in ("parquet", "arrow"):
        for name, damage in _DAMAGES.items():
            yield Bad(f"{kind}: {name}", f"{MASKED} --train_file b.{kind}", _table(kind, {"text": ["a"] * 99}, damage))
        tables: Mapping[str, Mapping[str, list[Any]]] = {
            "no rows": {"text": []},
            "numbers": {"a": [1, 2], "b": [3, 4]},
            "nulls": {"text": [None, None]},
            "several texts": {"a": ["x"] * 9, "b": ["y"] * 9},
            "bytes": {"text": [b"\xff", b"\xfe"]},
        }
        for name, columns in tables.items():
            yield Bad(f"{kind}: {name}", f"{MASKED} --train_file b.{kind}", _table(kind, columns))
    yield Bad("data: one document", f"{MASKED} --train_file b.jsonl", writes("b.jsonl", line))
    yield Bad("data: a link to nothing", f"{MASKED} --train_file b.txt", lambda shelf: Path("b.txt").symlink_to("gone"))
    yield Bad("data: a link to itself", f"{MASKED} --train_file b.txt", lambda shelf: Path("b.txt").symlink_to("b.txt"))
    for name, typed in {
        "missing": "gone.txt",
        "a glob of nothing": "'gone-*.txt'",
        "a long name": "x" * 300,
        "a name of a folder up": "../gone/x.txt",
        "a home of nobody": "~nobody-at-all/x.txt",
        "a format of a file": "good.txt --format fasta --text_column x",
    }.items():
        yield Bad(f"data: {name}", f"{MASKED} --train_file {typed}")


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


_DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut": _cut,
    "without its end": lambda content: content[:-8],
    "without its beginning": lambda content: content[11:],
    "with zeros within": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
}


def _table(kind: str, columns: Mapping[str, list[Any]], damage: Callable[[bytes], bytes] = bytes) -> Prepare:
    """A file of a table."""

    def prepare(shelf: Shelf) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, path = pa.table(dict(columns)), Path(f"b.{kind}")
        if kind == "parquet":
            pq.write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        path.write_bytes(damage(path.read_bytes()))

    return prepare


def folders() -> Iterator[Bad]:
    """Folders as data."""
    yield Bad("folder: empty", f"{MASKED} --train_file b", lambda shelf: Path("b").mkdir())
    yield Bad("folder: no data", f"{MASKED} --train_file b", writes("b/x.docx", "text"))
    yield Bad("folder: only hidden files", f"{MASKED} --train_file b", writes("b/.x.txt", "text"))
    splits = both(writes("b/train.txt", "text\n" * 9), writes("b/test.txt", "text\n" * 9))
    yield Bad("folder: splits", f"{MASKED} --train_file b", splits)
    yield Bad("dataset: an empty folder", f"{MASKED} --dataset_name ./b", lambda shelf: Path("b").mkdir())
    for name, damage in {
        "without its table": lambda: [path.unlink() for path in Path("b").rglob("*.arrow")],
        "with a damaged state": lambda: Path("b/state.json").write_text("{"),
        "with a list for its state": lambda: Path("b/state.json").write_text("[]"),
        "with a cut table": lambda: [path.write_bytes(_cut(path.read_bytes())) for path in Path("b").rglob("*.arrow")],
        "with damaged features": lambda: Path("b/dataset_info.json").write_text('{"features": {"text": 5}}'),
    }.items():
        yield Bad(f"dataset: saved, {name}", f"{MASKED} --dataset_name ./b", _saved(damage))
        yield Bad(f"dataset: saved, {name}, as files", f"{MASKED} --train_file ./b", _saved(damage))


def _saved(damage: Callable[[], Any]) -> Prepare:
    def prepare(shelf: Shelf) -> None:
        import datasets

        datasets.Dataset.from_dict({"text": ["a line of text"] * 50}).save_to_disk("b")
        damage()

    return prepare


def _changed(kind: str, change: Callable[[Path], Any]) -> Prepare:
    """The folder ``model``, a copy of a tiny one that was changed."""

    def prepare(shelf: Shelf) -> None:
        shutil.copytree(shelf.path(kind), "model")
        change(Path("model"))

    return prepare


def _set(file: str, **values: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        content = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(json.dumps(content))

    return change


def models() -> Iterator[Bad]:
    """Damaged models, for training, evaluation and prediction."""
    uses = {
        "run": OWN,
        "evaluate": "evaluate model --recipe masked-lm --validation_file good.txt",
        "predict": "predict model 'a <mask>'",
    }
    for name, change in _MODEL_DAMAGES.items():
        for use, words in uses.items():
            yield Bad(f"model, {use}: {name}", words, _changed("roberta", change))
    for name, change in _RUN_DAMAGES.items():
        yield Bad(f"run, push: {name}", "push model me/it", _changed("run", change))
        if name not in _NO_RECORD:  # what has no record is a model like any other
            yield Bad(f"run, predict: {name}", "predict model 'a <mask>'", _changed("run", change))
        yield Bad(f"run, evaluate: {name}", "evaluate model", _changed("run", change))
    for name, change in {
        "two different tied weights": _two_truths,
        "a generation config that is no JSON": lambda folder: (folder / "generation_config.json").write_text("{"),
        "a generation config of nothing": _set("generation_config.json", max_new_tokens=0),
        "a generation config that contradicts itself": _set("generation_config.json", num_return_sequences=3),
        "a generation config of another type": _set("generation_config.json", suppress_tokens=5, forced_bos_token_id=5),
    }.items():
        yield Bad(f"model, predict: {name}", "predict model text", _changed("gpt2", change))
        own = CAUSAL.replace("@gpt2", "model")
        yield Bad(f"model, run: {name}", f"{own} --train_file good.txt", _changed("gpt2", change))
    yield Bad("model: of another task", CAUSAL.replace("@gpt2", "@roberta") + " --train_file good.txt")
    yield Bad("model: that cannot fill in", MASKED.replace("@roberta", "@llama") + " --train_file good.txt")
    yield Bad("model: a file", MASKED.replace("@roberta", "./good.txt") + " --train_file good.txt")
    yield Bad("model: an id of nobody", MASKED.replace("@roberta", "me/gone") + " --train_file good.txt")
    yield Bad("model: no name", MASKED.replace("@roberta", "''") + " --train_file good.txt")
    yield Bad("model: a name of dots", MASKED.replace("@roberta", "..") + " --train_file good.txt")
    yield Bad("model: a name with a line break", MASKED.replace("@roberta", "'a\nb'") + " --train_file good.txt")


def _two_truths(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["transformer.wte.weight"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def changed(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def _writes(file: str, content: str | bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)


def _without(pattern: str) -> Callable[[Path], Any]:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


_MODEL_DAMAGES: Mapping[str, Callable[[Path], Any]] = {
    "no configuration": _without("config.json"),
    "no weights": _without("*.safetensors"),
    "no tokenizer": _without("tokenizer*"),
    "a configuration that is no JSON": _writes("config.json", "{"),
    "a list for a configuration": _writes("config.json", "[]"),
    "a number for a configuration": _writes("config.json", "5"),
    "an empty configuration": _writes("config.json", "{}"),
    "a configuration of zeros": _writes("config.json", bytes(99)),
    "a configuration that is no UTF-8": _writes("config.json", b"\xff\xfe"),
    "an unknown model type": _set("config.json", model_type="nosuch"),
    "a number for the model type": _set("config.json", model_type=5),
    "a text for a size": _set("config.json", hidden_size="wide"),
    "a size of 0": _set("config.json", num_attention_heads=0),
    "a size below 0": _set("config.json", hidden_size=-4),
    "a size that does not divide": _set("config.json", num_attention_heads=5),
    "other sizes than the weights": _set("config.json", intermediate_size=48),
    "more layers than the weights": _set("config.json", num_hidden_layers=3),
    "a smaller vocabulary than the weights": _set("config.json", vocab_size=300),
    "an unknown activation": _set("config.json", hidden_act="nosuch"),
    "no bytes of weights": _writes("model.safetensors", b""),
    "weights of zeros": _writes("model.safetensors", bytes(999)),
    "weights that are a text": _writes("model.safetensors", "text" * 99),
    "half of the weights": lambda folder: (folder / "model.safetensors").write_bytes(
        _cut((folder / "model.safetensors").read_bytes())
    ),
    "a weight missing": _weights(lambda weights: weights.pop("lm_head.dense.weight")),
    "a weight of another shape": _weights(
        lambda weights: weights.update({"lm_head.dense.weight": weights["lm_head.dense.weight"][:3].clone()})
    ),
    "a tokenizer that is no JSON": _writes("tokenizer.json", "{"),
    "a list for a tokenizer": _writes("tokenizer.json", "[]"),
    "an empty tokenizer": _writes("tokenizer.json", "{}"),
    "a tokenizer without a model": _set("tokenizer.json", model={"type": "nosuch"}),
    "a list for the tokenizer's configuration": _writes("tokenizer_config.json", "[]"),
    "an unknown class of tokenizer": _set("tokenizer_config.json", tokenizer_class="NoSuchTokenizer", auto_map=None),
    "no mask": _set("tokenizer_config.json", mask_token=None),
}

_RUN_DAMAGES: Mapping[str, Callable[[Path], Any]] = {
    "a record that is no JSON": _writes("run.json", "{"),
    "a list for the record": _writes("run.json", "[]"),
    "a number for the record": _writes("run.json", "5"),
    "a record of zeros": _writes("run.json", bytes(99)),
    "a record of nothing": _writes("run.json", "{}"),
    "an unfinished run": _set("run.json", status="running"),
    "an unknown recipe": _set("run.json", recipe="nosuch"),
    "a number for the recipe": _set("run.json", recipe=5),
    "no weights": _without("*.safetensors"),
    "no configuration": _without("config.json"),
}


_SHAPES = {
    "gpt2": "n_layer=1,n_embd=32,n_head=2",
    "llama": "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=32",
}


_NO_RECORD = ("a list for the record", "a number for the record", "a record of nothing")


def overrides() -> Iterator[Bad]:
    """Configurations that make no model."""
    for kind, texts in {
        "gpt2": (
            "n_layer=-1", "n_layer=0", "n_layer=2.5", "n_layer=x", "n_layer=99999999999999999999", "n_head=0",
            "n_head=-2", "n_head=5", "n_embd=0", "n_embd=-4", "n_embd=64.5", "n_positions=0", "n_positions=-1",
            "n_inner=0", "vocab_size=0", "vocab_size=-1", "resid_pdrop=2", "resid_pdrop=nan", "nosuch=1", "n_layer",
            "=1", "n_layer=1,,", "n_layer=", "activation_function=nosuch", "tie_word_embeddings=maybe",
        ),
        "llama": (
            "hidden_size=-4", "hidden_size=0", "hidden_size=65", "num_attention_heads=0", "num_attention_heads=7",
            "num_key_value_heads=0", "num_key_value_heads=5", "num_hidden_layers=-1", "intermediate_size=0",
            "intermediate_size=-3", "head_dim=0", "head_dim=-1", "max_position_embeddings=-1", "hidden_act=nosuch",
            "rope_theta=inf", "vocab_size=1.5",
        ),
    }.items():  # fmt: skip
        for text in texts:
            words = f"{FRESH} --model_type {kind} --config_overrides '{_SHAPES[kind]},{text}'"
            yield Bad(f"overrides, {kind}: {text}", words)


def outputs() -> Iterator[Bad]:
    """Run folders that cannot be used."""
    for name, typed in {
        "the model's": "@roberta",
        "inside the model's": "@roberta/run",
        "a file": "good.txt",
        "below a file": "good.txt/run",
        "a finished run": "@run",
        "around all that there is": ".",
        "of no name": "' '",
        "of a long name": "x" * 300,
    }.items():
        yield Bad(f"output: {name}", GOOD.replace("--output_dir out", f"--output_dir {typed}"))
    text = writes("b/a.txt", "text of a line\n" * 99)
    for name, where in {"the data's": "b", "inside the data's": "b/out", "around the data": "."}.items():
        base = MASKED.replace("--output_dir out", f"--output_dir {where}")
        yield Bad(f"output: {name}", f"{base} --train_file b", text)
    around = MASKED.replace("--output_dir out", "--output_dir b")
    yield Bad("output: around a file", f"{around} --train_file b/a.txt", text)
    yield Bad("output: around files of a glob", f"{around} --train_file 'b/*.txt'", text)
    yield Bad("output: other files", f"{GOOD}", writes("out/mine.txt", "mine"))
    yield Bad("output: a damaged record", f"{GOOD}", writes("out/run.json", "{"))
    yield Bad("output: a list for a record", f"{GOOD}", writes("out/run.json", "[]"))


def predictions() -> Iterator[Bad]:
    """What cannot be asked of a model."""
    fill, tell = "predict @roberta 'the <mask> is'", "predict @gpt2 'the list'"
    for words in (
        "predict", "predict ./gone text", "predict good.txt text", "predict @gpt2 ''", "predict @gpt2 a ' '",
        "predict @gpt2 --file gone.txt", "predict @gpt2 a --file good.txt", "predict @roberta 'no mask'",
        "predict @roberta '<mask>' 'no mask'", f"predict @roberta '<mask> {'list ' * 99}'", "predict @gpt2 --file .",
        f"predict @gpt2 '{'list ' * 99}'", f"predict @llama '{'list ' * 99}'", f"predict @llama a '{'list ' * 99}'",
        "predict @llama text --max_new_tokens 100", "predict @gpt2 text --recipe nosuch",
        "predict @gpt2 text --recipe masked-lm", "predict @gpt2 text --revision v1",
    ):  # fmt: skip
        yield Bad(f"predict: {words[:60]} {len(words)}", words)
    for words in (
        "--targets pizza", "--targets a --targets pizza", "--targets ''", "--top_k 401", "--top_k 0", "--top_k x",
        "--top_k 1.5", "--seed 1", "--temperature 1", "--max_new_tokens 3", "--topk 3", "--batch_size 0",
        "--batch_size x", "--tokenizer_kwargs 5", "--tokenizer_kwargs '{\"nosuch\": 1}'", "--nosuch",
    ):  # fmt: skip
        yield Bad(f"predict: fill {words}", f"{fill} {words}")
    for words in (
        "--max_new_tokens 0", "--max_new_tokens -1", "--max_new_tokens x", "--max_new_tokens 1.5",
        "--max_new_tokens 99999999999999999999", "--max_new_tokens 64", "--max_length 99", "--max_length 2",
        "--min_new_tokens -1", "--min_new_tokens 9 --max_new_tokens 3", "--temperature 0", "--temperature -1",
        "--temperature nan", "--temperature hot", "--temperature 1 --do_sample false", "--top_p 0", "--top_p 2",
        "--top_p 0.5 --do_sample false", "--top_k -1", "--top_k 3 --do_sample false", "--min_p 2", "--typical_p 2",
        "--epsilon_cutoff 3", "--eta_cutoff -1", "--repetition_penalty 0", "--repetition_penalty -1",
        "--length_penalty 2", "--early_stopping true", "--num_beams 0", "--num_beams x", "--num_beams -1",
        "--num_return_sequences 2 --do_sample false", "--num_return_sequences 0", "--no_repeat_ngram_size -1",
        "--bad_words_ids x", "--bad_words_ids [[500]]", "--suppress_tokens 400", "--suppress_tokens x",
        "--eos_token_id 400", "--eos_token_id -1", "--pad_token_id 400", "--forced_eos_token_id 400",
        "--stop_strings ''", "--seed -1", "--seed x", "--seed 4294967296", "--seed 1 --do_sample false",
        "--do_sample=maybe", "--use_cache=maybe", "--output_scores", "--cache_implementation nosuch",
        "--cache_config x", "--watermarking_config x", "--sequence_bias x", "--exponential_decay_length_penalty x",
        "--penalty_alpha 0.5", "--dola_layers low", "--constraints x", "--num_beam_groups 2", "--diversity_penalty 1",
        "--assistant_model x", "--num_assistant_tokens 3", "--use_mtp", "--tools x", "--documents x",
        "--continue_final_message", "--handle_long_generation x", "--return_type 7", "--tokenizer_encode_kwargs x",
        "--max_new_token 3", "--transformers_version 5", "--do_smaple", "--max_time 0", "--guidance_scale x",
        "--return_text --return_tensors", "--batch_size 99999999999999999999",
    ):  # fmt: skip
        yield Bad(f"predict: continue {words}", f"{tell} {words}")


def calls() -> Iterator[Bad]:
    """Calls from Python."""
    for name, values in {
        "pairs": [("a", "b")] * 9,
        "lists": [["a", "b"]] * 9,
        "numbers": [1] * 9,
        "bytes": [b"a"] * 9,
        "nothing": [None] * 9,
        "rows": [{"text": "a"}] * 9,
        "one number among texts": ["a"] * 9 + [1],
        "half a surrogate": ["\ud800"] * 9,
        "no rows": [],
        "a text": "a text",
        "a set": {"a", "b"},
        "a number": 5,
    }.items():
        yield Bad(f"call: train_dataset of {name}", _run(train_dataset=values))
        if name != "no rows":
            yield Bad(f"call: eval_dataset of {name}", _run(train_dataset=["a text"] * 40, eval_dataset=values))
    yield Bad("call: eval_dataset, a set of no name", _run(train_dataset=["a text"] * 40, eval_dataset={5: ["a"]}))
    yield Bad("call: a Dataset of numbers", lambda shelf: _run(train_dataset=_dataset(text=[1] * 9))(shelf))
    yield Bad("call: a Dataset without rows", lambda shelf: _run(train_dataset=_dataset(text=[]))(shelf))
    yield Bad("call: a Dataset of two texts", lambda shelf: _run(train_dataset=_dataset(a=["a"], b=["b"]))(shelf))
    good = {"train_file": "good.txt"}
    wrong: Sequence[Mapping[str, Any]] = (
        {"train_file": 5}, {"train_file": [("a", "b")]}, {"train_file": {"a": "b"}}, {"train_file": b"good.txt"},
        {**good, "seed": object()}, {**good, "seed": 1.5}, {**good, "learning_rate": [1]}, {**good, "output_dir": 5},
        {**good, "config": 5}, {**good, "config": {"seed": 1}}, {**good, "nosuch": 1}, {**good, "bf16": "maybe"},
        {**good, "per_device_train_batch_size": 10**20}, {**good, "report_to": [("a", "b")]}, {**good, "": 1},
        {**good, "add_tokens": [1]}, {**good, "add_tokens": [""]}, {**good, "add_tokens": [("a", "b")]},
        {"data": {"sources": [("a", "b")]}}, {"data": [("a", "b")]}, {"data": {"sources": {1, 2}}}, {"data": 5},
        {**good, "text_column": ("a", "b")}, {**good, "seed": 1, "split-seed": 1, "split_seed": 1},
        {**good, "model_name_or_path": 5}, {**good, "filter": len}, {**good, "lr_scheduler_kwargs": 5},
    )  # fmt: skip
    for values in wrong:
        yield Bad(f"call: run with {dict(values)}", _run(**values))
    yield Bad("call: run of no recipe", lambda shelf: _lmtasks().run(None))
    yield Bad("call: run of a number", lambda shelf: _lmtasks().run(5))
    yield Bad("call: run of another recipe", lambda shelf: _lmtasks().run("nosuch"))
    yield Bad("call: predict with no text", _predict(5))
    yield Bad("call: predict with pairs", _predict([("a", "b")]))
    yield Bad("call: predict with nothing", _predict(None))
    yield Bad("call: predict with a text of bytes", _predict(b"a"))
    yield Bad("call: predict with a temperature in words", _predict("a", temperature="hot"))
    yield Bad("call: predict with a list for a number", _predict("a", max_new_tokens=[3]))
    yield Bad("call: predict with a seed in words", _predict("a", seed="x"))
    yield Bad("call: predict with half a batch", _predict("a", batch_size=1.5))
    yield Bad("call: predict with a callable", _predict("a", stop_strings=len))
    yield Bad("call: predict of no model", lambda shelf: _lmtasks().predict("./gone", "a"))
    yield Bad("call: evaluate of no model", lambda shelf: _lmtasks().evaluate("./gone"))
    yield Bad("call: evaluate on pairs", lambda shelf: _lmtasks().evaluate(shelf.path("gpt2"), eval_dataset=[(1, 2)]))
    yield Bad("call: push of no run", lambda shelf: _lmtasks().push("./gone", "me/it"))
    yield Bad("call: merge into a number", lambda shelf: _lmtasks().merge(shelf.path("run"), 5))
    yield Bad("call: merge of a number", lambda shelf: _lmtasks().merge(5, "new"))
    yield Bad("call: merge into a NUL", lambda shelf: _lmtasks().merge(shelf.path("run"), "a\0b"))
    yield Bad("call: push to a number", lambda shelf: _lmtasks().push(shelf.path("run"), 5))


def _lmtasks() -> Any:
    import lmtasks

    return lmtasks


def _dataset(**columns: list[Any]) -> Any:
    import datasets

    return datasets.Dataset.from_dict(columns)


def _run(**values: Any) -> Call:
    small = {"block_size": 16, "max_steps": 1, "use_cpu": True, "output_dir": "out"}
    return lambda shelf: _lmtasks().run("masked-lm", **{"model_name_or_path": shelf.path("roberta"), **small, **values})


def _predict(texts: Any, **arguments: Any) -> Call:
    return lambda shelf: _lmtasks().predict(shelf.path("gpt2"), texts, **arguments)
