"""Bad input: exit code 2, one line that names the thing, one that says what to do, and nothing written."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers
from safetensors.torch import load_file
from torch import save

SMALL = "--block_size 16 --max_steps 1 --output_dir out"
MASKED = f"run masked-lm --model {{roberta}} {SMALL}"
CAUSAL = f"run causal-lm --model {{gpt2}} {SMALL}"
FRESH = f"run masked-lm {SMALL} --train_file good.txt"
GOOD = f"{MASKED} --train_file good.txt"

Prepare = Callable[[dict[str, Path]], Any]


class Bad(NamedTuple):
    """A mistake: what is typed, what the answer must name, and what must lie there for it."""

    name: str
    words: str
    says: str
    hints: str = ""
    prepare: Prepare | None = None


def file(name: str, content: str | bytes) -> Prepare:
    """A file in the working directory."""

    def prepare(shelf: dict[str, Path]) -> None:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def rows(*values: Any) -> Prepare:
    """A JSONL file; a value that is no object is the cell of a column ``text``."""
    lines = [value if isinstance(value, dict) else {"text": value} for value in values]
    return file("bad.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def folder_without(kind: str, *patterns: str) -> Prepare:
    """The folder ``model`` of a tiny model that lacks some files."""

    def prepare(shelf: dict[str, Path]) -> None:
        shutil.copytree(shelf[kind], "model")
        for pattern in patterns:
            for path in Path("model").glob(pattern):
                path.unlink()

    return prepare


def pickled_weights(shelf: dict[str, Path]) -> None:
    folder_without("roberta")(shelf)
    save(load_file("model/model.safetensors"), "model/pytorch_model.bin")
    Path("model/model.safetensors").unlink()


def damaged_weights(shelf: dict[str, Path]) -> None:
    folder_without("roberta")(shelf)
    weights = Path("model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-5000])


def damaged_tokenizer(shelf: dict[str, Path]) -> None:
    folder_without("roberta")(shelf)
    Path("model/tokenizer.json").write_bytes(Path("model/tokenizer.json").read_bytes()[:1000])


def other_shape(shelf: dict[str, Path]) -> None:
    folder_without("roberta")(shelf)
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps({**config, "intermediate_size": 48}))


def headless(shelf: dict[str, Path]) -> None:
    """A checkpoint of the encoder alone, without the layers that guess words."""
    folder_without("bert", "model.safetensors")(shelf)
    transformers.AutoModel.from_pretrained(shelf["bert"]).save_pretrained("model")


def t5(shelf: dict[str, Path]) -> None:
    transformers.T5Config(
        vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    ).save_pretrained("model")
    transformers.AutoTokenizer.from_pretrained(shelf["gpt2"]).save_pretrained("model")


def out_folder(**files: str) -> Prepare:
    def prepare(shelf: dict[str, Path]) -> None:
        Path("out").mkdir()
        for name, content in files.items():
            Path("out", name.replace("_", ".")).write_text(content)

    return prepare


def finished_run(shelf: dict[str, Path]) -> None:
    shutil.copytree(shelf["run"], "out")


def unfinished_run(shelf: dict[str, Path]) -> None:
    """What a run leaves that was killed before its first checkpoint."""
    finished_run(shelf)
    shutil.rmtree("out/checkpoints")
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))


def killed_while_saving(shelf: dict[str, Path]) -> None:
    """What is left when the only checkpoint was not written to its end."""
    unfinished_run(shelf)
    shutil.copytree(shelf["run"] / "checkpoints", "out/checkpoints")
    Path("out/checkpoints/checkpoint-1/trainer_state.json").write_text('{"best')


def damaged_record(shelf: dict[str, Path]) -> None:
    finished_run(shelf)
    Path("out/run.json").write_text('{"status": "do')


COMMANDS = [
    Bad("no such command", "trian masked-lm", "unknown command 'trian'", "lmtasks --help"),
    Bad("almost a command", "pridict out text", "unknown command 'pridict', did you mean 'predict'"),
    Bad("run without a recipe", "run", "run needs a recipe", "masked-lm"),
    Bad("flags before the recipe", "run --max_steps 1", "run needs a recipe"),
    Bad("no such recipe", "run masked-ml", "unknown recipe 'masked-ml', did you mean 'masked-lm'", "lmtasks list"),
    Bad("show of no such recipe", "show casual-lm", "unknown recipe 'casual-lm', did you mean 'causal-lm'"),
    Bad("show of nothing", "show", "a name is missing", "lmtasks show RECIPE"),
    Bad("list with a flag that it lacks", "list --verbose", "unexpected '--verbose'", "usage: lmtasks list"),
    Bad("no such flag", f"{GOOD} --lerning_rate 1", "--lerning_rate', did you mean 'learning_rate'", "--help-all"),
    Bad("nothing like any flag", f"{GOOD} --zzzz 1", "unknown option '--zzzz'", "--help-all"),
    Bad("a word between flags", f"{GOOD} --seed 1 stray", "unexpected 'stray'", "quotes"),
    Bad("flag of another recipe", f"{CAUSAL} --train_file good.txt --mlm_probability 0.2", "--mlm_probability"),
    Bad("flag without its value", f"{GOOD} --learning_rate", "--learning_rate", "--help"),
    Bad("dataset that only Python can hold", f"{MASKED} --train_dataset good.txt", "train_dataset cannot be a str"),
]

DATA = [
    Bad("missing file", f"{MASKED} --train_file gone.txt", "no such file: gone.txt"),
    Bad("almost the name of a file", f"{MASKED} --train_file godo.txt", "godo.txt, did you mean 'good.txt'"),
    Bad("missing file to evaluate on", f"{GOOD} --validation_file gone.txt", "gone.txt"),
    Bad("empty file", f"{MASKED} --train_file bad.txt", "bad.txt is empty", prepare=file("bad.txt", "")),
    Bad("blank file", f"{MASKED} --train_file bad.txt", "white space", prepare=file("bad.txt", " \n\n")),
    Bad("glob without a match", f"{MASKED} --train_file 'gone-*.txt'", "gone-*.txt"),
    Bad(
        "binary file", f"{MASKED} --train_file bad.txt", "bad.txt", prepare=file("bad.txt", b"\x7fELF\0\xff\xfe\0" * 9)
    ),
    Bad("invalid UTF-8", f"{MASKED} --train_file bad.txt", "byte 8", prepare=file("bad.txt", b"A caf\xc3\xa9 \xe9t\n")),
    Bad(
        "Latin-1",
        f"{MASKED} --train_file bad.txt",
        "byte 5",
        "--encoding",
        file("bad.txt", "une fête\n".encode("cp1252")),
    ),
    Bad(
        "half of UTF-16",
        f"{MASKED} --train_file b.txt",
        "utf-16",
        "--encoding",
        file("b.txt", "ab".encode("utf-16")[:-1]),
    ),
    Bad("no such encoding", f"{GOOD} --encoding latin-x", "--encoding cannot be 'latin-x'", "cp1252"),
    Bad("an encoding of bytes", f"{GOOD} --encoding base64", "--encoding cannot be 'base64'", "cp1252"),
    Bad("another encoding", f"{MASKED} --train_file b.txt --encoding ascii", "byte 3", "", file("b.txt", b"caf\xc3")),
    Bad("nothing but zeros", f"{MASKED} --train_file b.txt", "binary file", "text", file("b.txt", b"a" + b"\0" * 99)),
    Bad("no such format", f"{GOOD} --format jsno", "--format cannot be 'jsno', did you mean 'json'", "one of text"),
    Bad(
        "a csv file without a header",
        f"{MASKED} --train_file bad.csv",
        "whether bad.csv has a header: its first row has 'A sentence.'",
        "--csv_header false",
        file("bad.csv", "A sentence.\nAnother one.\n"),
    ),
    Bad(
        "two columns of one name",
        f"{MASKED} --train_file b.csv",
        "named 'a'",
        "--csv_header",
        file("b.csv", "a,a\n1,2\n"),
    ),
    Bad(
        "two separators",
        f"{MASKED} --train_file bad.csv",
        "cannot tell what separates the cells of bad.csv",
        "--csv_separator ';'",
        file("bad.csv", "id;text|n\n1;a|2\n"),
    ),
    Bad(
        "a quotation mark that is never closed",
        f"{MASKED} --train_file bad.csv",
        "bad.csv cannot be read",
        "--csv_quoting none",
        file("bad.csv", 'id,text\n1,"open\n2,b\n'),
    ),
    Bad("a template without a name", f"{GOOD} --text_template 'text'", "names no column", "--text_template"),
    Bad("a template with half a brace", f"{GOOD} --text_template '{{{{text'", "'{' at character 1", "written twice"),
    Bad(
        "a template with another name", f"{GOOD} --text_template '{{{{title}}}}'", "no column 'title'", "--text_column"
    ),
    Bad("a long name", f"{MASKED} --train_file {'x' * 300}.txt", "is no name of a file", "at most 255 bytes"),
    Bad(
        "bad JSON line",
        f"{MASKED} --train_file bad.jsonl",
        "line 3",
        prepare=file("bad.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": \n'),
    ),
    Bad("no column of that name", f"{MASKED} --train_file bad.jsonl --text_column body", "body", "", rows("a", "b")),
    Bad(
        "no text column",
        f"{MASKED} --train_file bad.jsonl",
        "",
        "--text_column",
        rows({"title": "a", "body": "b"}, {"title": "c", "body": "d"}),
    ),
    Bad("null text", f"{MASKED} --train_file bad.jsonl", "row 2", "", rows("a", None, "c", None)),
    Bad("text missing in one row", f"{MASKED} --train_file bad.jsonl", "row 3", "", rows("a", "b", {"other": "c"})),
    Bad("numbers for text", f"{MASKED} --train_file bad.jsonl", "text", "", rows(1, 2, 3)),
    Bad("one number among texts", f"{MASKED} --train_file bad.jsonl", "row 3", "", rows("a", "b", 3)),
    Bad("a file of an unknown kind", f"{MASKED} --train_file bad.docx", "bad.docx", prepare=file("bad.docx", "text")),
    Bad("a damaged parquet file", f"{MASKED} --train_file b.parquet", "b.parquet", prepare=file("b.parquet", "PAR1")),
    Bad("empty dataset", f"{MASKED} --train_file bad.csv", "bad.csv", prepare=file("bad.csv", "text\n")),
    Bad("one document", f"{MASKED} --train_file bad.jsonl", "1", "--validation_file", rows("only one " * 99)),
    Bad(
        "nothing to hide",
        f"{MASKED} --train_file good.txt --validation_file bad.txt",
        "the held-out text has nothing to predict in its 3 tokens",
        "more text",
        file("bad.txt", "<s></s><pad>"),
    ),
    Bad(
        "nothing to learn",
        f"{MASKED} --train_file bad.txt --validation_file good.txt",
        "the training text has nothing to predict in its 1 tokens",
        "more text",
        file("bad.txt", "<s>"),
    ),
    Bad("nothing to isolate", f"{GOOD} --isolate_documents", "lines of the training text", "--sample_by paragraph"),
    Bad("nothing but frame", f"{GOOD} --block_size 2", "no room beside its 2 special tokens", "--block_size"),
    Bad("a share above all", f"{GOOD} --test_size 1.5", "--test_size cannot be", "fraction"),
    Bad("two shares", f"{GOOD} --test_size 0.1 --validation_split_percentage 10", "--test_size"),
    Bad("slice of no split", f"{GOOD} --train_split trian", "trian"),
    Bad("half a slice", f"{GOOD} --train_split 'train[:'", "train[:"),
    Bad("dataset while offline", f"{MASKED} --dataset_name someone/gone", "someone/gone", "HF_HUB_OFFLINE"),
    Bad("the same file twice", f"{GOOD} --validation_file good.txt", "both", "--validation_file"),
    Bad(
        "the same file in a set",
        f"{GOOD} --validation_file a=good.txt",
        "good.txt is given for both training and evaluation",
    ),
    Bad(
        "one set with a name, one without",
        f"{GOOD} --validation_file a=b.txt c.txt",
        "--validation_file c.txt has no name, and 'a' has one",
        "NAME=FILE",
    ),
    Bad("a set called as a figure", f"{GOOD} --validation_file loss=b.txt", "cannot be called 'loss'", "letters"),
    Bad(
        "a mix without weights",
        f"{MASKED} --data mix.yaml",
        "--data 'mix.yaml', source 'a' has no weight",
        "weight: 0.5",
        file("mix.yaml", "sources: [{name: a, train_file: good.txt}]"),
    ),
    Bad(
        "a mix and a file",
        f"{GOOD} --data mix.yaml",
        "--data and --train_file exclude each other",
        "each source of the mix has its own",
        file("mix.yaml", "sources: [{name: a, train_file: good.txt, weight: 1}]"),
    ),
    Bad("no such mix", f"{MASKED} --data gone.yaml", "cannot read --data 'gone.yaml'", "existing YAML file"),
]

MODELS = [
    Bad("block above the positions", f"{GOOD} --max_eval_samples 4".replace("16", "65"), "65", "--block_size 64"),
    Bad("block of one", GOOD.replace("16", "1"), "--block_size"),
    Bad("tokenizer without a mask", f"{GOOD} --tokenizer_name {{gpt2}}", "mask_token", "--train_tokenizer"),
    Bad("encoder to continue texts", CAUSAL.replace("gpt2", "bert") + " --train_file good.txt", "bert", "masked-lm"),
    Bad("decoder to fill in", MASKED.replace("roberta", "gpt2") + " --train_file good.txt", "gpt2", "causal-lm"),
    Bad("sequence to sequence", CAUSAL.replace("{gpt2}", "model") + " --train_file good.txt", "t5", prepare=t5),
    Bad("no such model folder", MASKED.replace("{roberta}", "./gone") + " --train_file good.txt", "./gone"),
    Bad(
        "model on the Hub, offline",
        MASKED.replace("{roberta}", "a/gone") + " --train_file good.txt",
        "a/gone",
        "OFFLINE",
    ),
    Bad("no Hub id at all", MASKED.replace("{roberta}", "'a b'") + " --train_file good.txt", "a b"),
    Bad(
        "unknown model type", f"{FRESH} --model_type robreta --train_tokenizer 400", "'robreta', did you mean 'roberta'"
    ),
    Bad("new model without a tokenizer", f"{FRESH} --model_type roberta", "tokenizer", "--train_tokenizer"),
    Bad("tiny tokenizer", f"{FRESH} --model_type roberta --train_tokenizer 20", "--train_tokenizer"),
    Bad("new model for another task", f"{FRESH} --model_type gpt2 --tokenizer_name {{roberta}}", "gpt2", "causal-lm"),
    Bad(
        "unknown override",
        f"{FRESH} --model_type roberta --train_tokenizer 400 --config_overrides hiden_size=8",
        "'hiden_size', did you mean 'hidden_size'",
        "name=value",
    ),
    Bad(
        "override without a value",
        f"{FRESH} --model_type roberta --train_tokenizer 400 --config_overrides hidden_size",
        "hidden_size",
    ),
    Bad(
        "override that is no number",
        f"{FRESH} --model_type roberta --train_tokenizer 400 --config_overrides hidden_size=wide",
        "'hidden_size' must be a number",
        "768",
    ),
    Bad(
        "overrides that contradict",
        f"{FRESH} --model_type roberta --train_tokenizer 400 --config_overrides hidden_size=30,num_attention_heads=4",
        "30",
    ),
    Bad(
        "overrides of a checkpoint", f"{GOOD} --config_overrides hidden_size=8", "--config_overrides", "one of the two"
    ),
    Bad("checkpoint and new model", f"{GOOD} --model_type roberta", "--model_type", "one of the two"),
    Bad("two tokenizers", f"{FRESH} --tokenizer_name {{roberta}} --train_tokenizer 400", "--train_tokenizer", "one of"),
    Bad(
        "strange code",
        "run masked-lm --model some/where --trust_remote_code",
        "--trust_remote_code needs --revision",
        "commit",
    ),
]
MODEL = MASKED.replace("{roberta}", "model") + " --train_file good.txt"
DAMAGED = [
    Bad("no weights", MODEL, "no weights", "saved model", folder_without("roberta", "*.safetensors")),
    Bad("no tokenizer", MODEL, "tokenizer", "", folder_without("roberta", "*token*", "*vocab*", "*merges*")),
    Bad("no configuration", MODEL, "model", "config.json", folder_without("roberta", "config.json")),
    Bad("only pickled weights", MODEL, ".bin", "safetensors", pickled_weights),
    Bad("truncated weights", MODEL, "damaged", "again", damaged_weights),
    Bad("weights of another shape", MODEL, "do not fit", "configuration", other_shape),
    Bad("weights that lack the head", MODEL, "lacks", "--allow_new_weights", headless),
    Bad("damaged tokenizer", MODEL, "tokenizer 'model'", "", damaged_tokenizer),
    Bad(
        "configuration that is no JSON",
        MODEL,
        "model",
        "",
        lambda shelf: (t5(shelf), file("model/config.json", "{")(shelf)),
    ),
]

OUTPUT = [
    Bad("output is a file", GOOD, "'out' is a file", "folder", file("out", "mine")),
    Bad("output below a file", f"{GOOD}/deep", "'out'", "folder", file("out", "mine")),
    Bad("output has other files", GOOD, "'out' holds files", "another", out_folder(notes_txt="mine")),
    Bad(
        "other files, overwriting", f"{GOOD} --overwrite_output_dir", "'out' holds files", "another", out_folder(a_b="")
    ),
    Bad("finished run", GOOD, "finished run", "--overwrite_output_dir", finished_run),
    Bad("finished run, resuming", f"{GOOD} --resume_from_checkpoint true", "finished run", "", finished_run),
    Bad("unfinished run", GOOD, "unfinished", "--resume_from_checkpoint true", unfinished_run),
    Bad(
        "unfinished, other options",
        f"{GOOD} --learning_rate 1",
        "other options",
        "--overwrite_output_dir",
        unfinished_run,
    ),
    Bad("no checkpoint yet", f"{GOOD} --resume_from_checkpoint true", "first checkpoint", "", unfinished_run),
    Bad(
        "half a checkpoint",
        f"{GOOD} --resume_from_checkpoint",
        "no checkpoint of the run in 'out' is good",
        "",
        killed_while_saving,
    ),
    Bad(
        "no such checkpoint",
        f"{GOOD} --resume_from_checkpoint out/it",
        "'out/it' is no checkpoint of",
        "true",
        unfinished_run,
    ),
    Bad("resume and start again", f"{GOOD} --resume_from_checkpoint --overwrite_output_dir", "exclude", "one of them"),
    Bad("nothing to resume", f"{GOOD} --resume_from_checkpoint true", "nothing to resume in 'out'", "--resume"),
    Bad("damaged record", GOOD, "run.json' is damaged", "another", damaged_record),
    Bad("push while offline", f"{GOOD} --push_to_hub --hub_model_id me/it", "offline", "lmtasks push"),
    Bad("push to an impossible name", f"{GOOD} --push_to_hub --hub_model_id 'me it'", "'me it'"),
]

NUMBERS = [
    Bad("learning rate below zero", f"{GOOD} --learning_rate -1", "--learning_rate cannot be", "peak"),
    Bad("learning rate that is none", f"{GOOD} --learning_rate nan", "--learning_rate cannot be"),
    Bad("endless learning rate", f"{GOOD} --learning_rate inf", "--learning_rate cannot be"),
    Bad("learning rate in words", f"{GOOD} --learning_rate high", "--learning_rate cannot be"),
    Bad("no epochs", f"{GOOD} --num_train_epochs 0", "--num_train_epochs cannot be"),
    Bad("no steps", "run masked-lm --model {roberta} --train_file good.txt --max_steps 0", "--max_steps cannot be 0"),
    Bad("empty batch", f"{GOOD} --per_device_train_batch_size 0", "--per_device_train_batch_size cannot be '0'"),
    Bad("half a batch", f"{GOOD} --per_device_train_batch_size 1.5", "--per_device_train_batch_size cannot be '1.5'"),
    Bad("empty evaluation batch", f"{GOOD} --per_device_eval_batch_size 0", "--per_device_eval_batch_size cannot"),
    Bad("accumulate nothing", f"{GOOD} --gradient_accumulation_steps 0", "--gradient_accumulation_steps cannot be '0'"),
    Bad("seed below zero", f"{GOOD} --seed -1", "--seed cannot be '-1'"),
    Bad("seed too long", f"{GOOD} --seed 4294967296", "--seed cannot be '4294967296'"),
    Bad("hide nothing", f"{GOOD} --mlm_probability 0", "--mlm_probability cannot be", "share"),
    Bad("hide everything", f"{GOOD} --mlm_probability 1", "--mlm_probability cannot be", "share"),
    Bad(
        "no whole batch for so many steps",
        f"{GOOD} --dataloader_drop_last --max_train_samples 7",
        "there are 7 examples, less than one batch, and --dataloader_drop_last drops it",
        "--per_device_train_batch_size",
    ),
    Bad("save every zero steps", f"{GOOD} --save_steps 0", "--save_steps cannot be"),
    Bad("log every zero steps", f"{GOOD} --logging_steps 0", "logging"),
    Bad("no samples", f"{GOOD} --max_train_samples 0", "--max_train_samples cannot be '0'"),
    Bad("clip below zero", f"{GOOD} --max_grad_norm -1", "--max_grad_norm cannot be"),
    Bad("weight decay below zero", f"{GOOD} --weight_decay -1", "--weight_decay cannot be"),
    Bad("neither yes nor no", f"{GOOD} --bf16 maybe", "--bf16 cannot be 'maybe'", "bfloat16"),
    Bad("unknown evaluation strategy", f"{GOOD} --eval_strategy epochs", "did you mean 'epoch'"),
    Bad("unknown tracker", f"{GOOD} --report_to wandbb", "'wandbb', did you mean 'wandb'", "trackio"),
    Bad("tracker that is not installed", f"{GOOD} --report_to neptune", "neptune: it is not installed", "pip install"),
    Bad("unknown optimiser", f"{GOOD} --optim adam_torch", "'adam_torch'", "adamw_torch"),
    Bad("unknown scheduler", f"{GOOD} --lr_scheduler_type cosin", "'cosin'", "cosine"),
    Bad("float16 without a GPU", f"{GOOD} --fp16 --use_cpu", "--fp16 needs a GPU", "--bf16"),
    Bad("optimiser that is not installed", f"{GOOD} --optim lomo", "lomo_optim", "--help-all"),
    Bad("impossible beta", f"{GOOD} --adam_beta1 2", "beta", "--help-all"),
    Bad("scheduler argument", f"{GOOD} --lr_scheduler_kwargs '{{{{\"bad\": 1}}}}'", "'bad'", "--help-all"),
    Bad("scheduler without its argument", f"{GOOD} --lr_scheduler_type cosine_with_min_lr", "min_lr"),
    Bad("fewer than no workers", f"{GOOD} --dataloader_num_workers -1", "num_workers"),
    Bad("the best of nothing", f"{GOOD} --save_strategy best", "--metric_for_best_model", "loss"),
    Bad(
        "the best of no figure",
        f"{GOOD} --eval_strategy steps --metric_for_best_model perplexty",
        "perplexty is no figure of the evaluation during training, did you mean 'perplexity'",
        "one of loss, ",
    ),
    Bad(
        "more loss is better",
        f"{GOOD} --eval_strategy steps --metric_for_best_model loss --greater_is_better true",
        "--greater_is_better true contradicts --metric_for_best_model loss: less of it is better",
        "leave --greater_is_better out",
    ),
    Bad("checkpoints by somebody else", f"{GOOD} --enable_jit_checkpoint", "--enable_jit_checkpoint is not supported"),
    Bad("fewer than no steps", f"{GOOD} --max_steps -5", "--max_steps cannot be"),
    Bad("tf32 without a GPU", f"{GOOD} --tf32 true", "tf32"),
    Bad("token as a flag", f"{GOOD} --hub_token hf_x", "--hub_token is not supported", "leave --hub_token out"),
    Bad("smooth beyond reason", f"{GOOD} --label_smoothing_factor 1", "--label_smoothing_factor cannot be"),
    Bad("best model, nothing to compare", f"{GOOD} --load_best_model_at_end", "save and eval strategy"),
    Bad("a run that does not train", f"{GOOD} --do_train false", "--do_train", "lmtasks evaluate"),
]

CONFIG = [
    Bad("no such YAML file", f"{GOOD} --config gone.yaml", "gone.yaml"),
    Bad(
        "no YAML", f"{GOOD} --config bad.yaml", "bad.yaml' is not YAML", "name: value", file("bad.yaml", "a: [1\nb: 2")
    ),
    Bad(
        "YAML list", f"{GOOD} --config bad.yaml", "bad.yaml' must hold", "learning_rate", file("bad.yaml", "- a\n- b\n")
    ),
    Bad("empty YAML", f"{GOOD} --config bad.yaml", "bad.yaml' must hold", "", file("bad.yaml", "")),
    Bad("binary YAML", f"{GOOD} --config bad.yaml", "bad.yaml' is not YAML", "", file("bad.yaml", b"\xff\x00")),
    Bad(
        "unknown YAML key",
        f"{GOOD} --config bad.yaml",
        "learning_rte', did you mean 'learning_rate'",
        "",
        file("bad.yaml", "learning_rte: 1"),
    ),
    Bad(
        "one thing under two names",
        f"{MASKED} --config bad.yaml",
        "--train_split is given twice",
        "once",
        file("bad.yaml", "train_split: train\ntrain-split: train"),
    ),
    Bad(
        "YAML key twice",
        f"{GOOD} --config bad.yaml",
        "bad.yaml': 'seed' is there twice, in lines 1 and 3",
        "keep one",
        file("bad.yaml", "seed: 1\nsplit_seed: 2\nseed: 3\n"),
    ),
    Bad(
        "YAML key twice further in",
        f"{GOOD} --config bad.yaml",
        "bad.yaml': 'min_lr' is there twice, in lines 2 and 3",
        "keep one",
        file("bad.yaml", "lr_scheduler_kwargs:\n  min_lr: 1\n  min_lr: 2\n"),
    ),
    *(
        Bad(
            f"YAML that reads {written} as {read}",
            f"{GOOD} --config bad.yaml",
            f"bad.yaml', line 2: YAML does not read {written} as it is written, but as {read}",
            "decimal",
            file("bad.yaml", f"split_seed: 0x1F\nseed: {written}\n"),
        )
        for written, read in (("010", "8"), ("1:30", "90"), ("0b11", "3"), ("1:30.5", "90.5"))
    ),
    Bad("output in no folder", f"{MASKED} --train_file good.txt --output_dir ''", "--output_dir is empty", "leave it"),
    Bad("revision of a folder", f"{GOOD} --revision v1", "--revision v1: the folder '", "leave --revision out"),
    Bad("bad YAML value", f"{GOOD} --config bad.yaml", "--fp16", "", file("bad.yaml", 'fp16: "maybe"')),
    Bad(
        "YAML list for a number", f"{GOOD} --config bad.yaml", "--seed cannot be [1]", "", file("bad.yaml", "seed: [1]")
    ),
]

USING = [
    Bad("predict without a model", "predict", "predict needs a run or a model", "lmtasks predict"),
    Bad("predict with no such model", "predict ./gone text", "./gone"),
    Bad("predict with an empty text", "predict {gpt2} ' '", "empty text", "quotes"),
    Bad(
        "predict with an empty file",
        "predict {gpt2} --file bad.txt",
        "no text in 'bad.txt'",
        "line",
        file("bad.txt", "\n"),
    ),
    Bad("predict with a missing file", "predict {gpt2} --file gone.txt", "gone.txt", "check the path"),
    Bad("predict with a binary file", "predict {gpt2} --file b.txt", "byte 1", "--encoding", file("b.txt", b"a\xff")),
    Bad("predict with an unknown argument", "predict {gpt2} text --max_new_token 3", "did you mean 'max_new_tokens'"),
    Bad("predict with a bad argument", "predict {roberta} 'a <mask>' --top_k many", "--top_k cannot be 'many'"),
    Bad("predict with a bad batch", "predict {gpt2} text --batch_size many", "--batch_size", "--help"),
    Bad("predict with an empty batch", "predict {gpt2} text more --batch_size 0", "batch_size"),
    Bad("predict without a mask", "predict {roberta} 'no mask'", "mask", "<mask>"),
    Bad("predict as no such recipe", "predict {gpt2} text --recipe causal", "unknown recipe 'causal'"),
    Bad("predict with a seq2seq model", "predict model text", "t5", "--recipe", t5),
    Bad("evaluate nothing", "evaluate", "evaluate needs a run or a model"),
    Bad("evaluate without data", "evaluate {gpt2}", "no data", "--train_file"),
    Bad("evaluate no such model", "evaluate ./gone --validation_file good.txt", "./gone"),
    Bad(
        "evaluate with training flags",
        "evaluate {gpt2} --validation_file good.txt --learning_rate 1",
        "--learning_rate means",
    ),
    Bad("evaluate into a folder", "evaluate {gpt2} --validation_file good.txt --output_dir out", "--output_dir means"),
    Bad(
        "evaluate on nothing to predict",
        "evaluate {roberta} --validation_file bad.txt",
        "the evaluation text has nothing to predict",
        "more text",
        file("bad.txt", "<s>"),
    ),
    Bad(
        "a stride that skips text",
        "evaluate {gpt2} --validation_file good.txt --block_size 16 --stride 17",
        "--stride 17 would skip text",
        "--stride 15 or less",
    ),
    Bad("push nothing", "push", "RUN", "--help"),
    Bad("push no such folder", "push gone me/it", "gone", "lmtasks push"),
    Bad("push a folder that is no run", "push {gpt2} me/it", "run.json", "lmtasks push"),
    Bad("push an unfinished run", "push out me/it", "not done", "finish", unfinished_run),
    Bad("push while offline, finished", "push out me/it", "offline", "", finished_run),
]

ALL = [*COMMANDS, *DATA, *MODELS, *DAMAGED, *OUTPUT, *NUMBERS, *CONFIG, *USING]


@pytest.fixture(scope="module")
def shelf(model_folders: dict[str, Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models, a text and a finished run with the options of ``GOOD``."""
    from lmtasks.runs.runner import run

    home = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        shutil.copy(text_file, "good.txt")
        run(
            "masked-lm",
            model_name_or_path=str(model_folders["roberta"]),
            train_file="good.txt",
            block_size=16,
            max_steps=1,
            output_dir="out",
        )
    return {**model_folders, "text": text_file, "run": home / "out"}


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: bad.name)
def test_bad_input_is_two_lines_and_nothing_written(
    bad: Bad, lmtasks: Any, shelf: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shelf["text"], "good.txt")
    if bad.prepare:
        bad.prepare(shelf)
    before = listing(tmp_path)

    outcome = lmtasks(*shlex.split(bad.words.format(**shelf)))

    assert listing(tmp_path) == before, "something was written"
    assert outcome.out == ""
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    lines = outcome.err.splitlines()
    assert [line.partition(":")[0] for line in lines[-2:]] == ["error", "hint"], outcome.err
    assert sum(line.startswith(("error:", "hint:")) for line in lines) == 2, outcome.err
    assert bad.says in lines[-2]
    assert bad.hints in lines[-1]
    assert len(lines[-2]) < 300, "one line to read, not a list of everything"


def test_the_names_of_the_rows_are_unique() -> None:
    names = [bad.name for bad in ALL]
    assert sorted(set(names)) == sorted(names)
