"""Configuration: from names and values, however they were given, to a checked request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import cpp_builder
from transformers import TrainingArguments

import lmtasks
from lmtasks import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.launching import FLAGS
from lmtasks.config.elsewhere import ELSEWHERE, PEERS
from lmtasks.config.request import Request, as_record, configure, fingerprint, groups_of, read_yaml
from lmtasks.config.settings import TrainingSettings
from lmtasks.config.training_arguments import OURS, REFUSED, training_arguments, training_options
from lmtasks.errors import InputError
from lmtasks.registry.catalog import LAUNCHERS
from lmtasks.runs.plan import Plan

FRESH = {"model_type": "roberta", "train_tokenizer": 500}


def ask(**values: Any) -> Request:
    return configure(MASKED_LM, values)


def refused(**values: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        configure(MASKED_LM, values)
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


# --- the card ---


@pytest.mark.parametrize("language", ["en", "pt-BR", "zh-Hant", "code", "multilingual", ["ja", "ko", "ar"]])
def test_languages_of_the_card(language: Any) -> None:
    assert ask(language=language, license="cc-by-nc-4.0").output.language == (
        language if isinstance(language, list) else [language]
    )


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        ({"language": "English"}, "--language 'English' is no code of a language", "such as --language en zh pt-BR"),
        ({"language": ["en", "EN"]}, "--language 'EN' is no code of a language", "such as --language en zh pt-BR"),
        ({"license": "Apache 2.0"}, "--license 'Apache 2.0' is no identifier of a licence", "--license apache-2.0"),
        ({"license": "©"}, "--license '©' is no identifier of a licence", "such as --license apache-2.0"),
    ],
)
def test_what_the_hub_could_not_read_is_refused(asked: dict[str, Any], message: str, hint: str) -> None:
    error = refused(**asked)
    assert error.message == message
    assert hint in error.hint


def test_the_card_changes_no_run() -> None:
    assert fingerprint(ask(language="en", license="mit")) == fingerprint(ask())


# --- names ---


def test_values_arrive_in_their_groups_with_their_types() -> None:
    request = ask(
        model_name_or_path="m", mlm_probability="0.2", train_file="a.txt", output_dir="out", learning_rate="1e-4"
    )
    assert request.options.mlm_probability == 0.2
    assert request.data.train_file == ["a.txt"]
    assert request.model.model_name_or_path == "m"
    assert request.output.output_dir == "out"
    assert request.training["learning_rate"] == 1e-4
    assert request.given == {"model_name_or_path", "mlm_probability", "train_file", "output_dir", "learning_rate"}


def test_aliases_set_their_options() -> None:
    request = ask(model="m", max_seq_length=64, dataset="d", model_revision="v1")
    assert request.model.model_name_or_path == "m"
    assert request.options.block_size == 64
    assert request.data.dataset_name == "d"
    assert request.model.revision == "v1"
    assert "block_size" in request.given


def test_hyphens_and_underscores_are_the_same() -> None:
    assert ask(**{"block-size": 64, "learning-rate": "0.5", "max-seq_length": None}).options.block_size == 64


@pytest.mark.parametrize("other", ["max_seq_length", "block-size"])
def test_option_given_twice_is_refused(other: str) -> None:
    error = refused(**{"block_size": 64, other: 64})
    assert error.message == f"--block_size is given twice, as 'block_size' and as '{other}'"


def test_none_counts_as_not_given() -> None:
    request = ask(model="m", block_size=None)
    assert (request.options.block_size, request.given) == (128, {"model_name_or_path"})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rat", "learning_rate"),
        ("mlm_probabilty", "mlm_probability"),
        ("train_fil", "train_file"),
        ("adam_beta_1", "adam_beta1"),
    ],
)
def test_unknown_name_names_the_nearest(typed: str, meant: str) -> None:
    error = refused(**{typed: 1})
    assert error.message == f"unknown option '--{typed}', did you mean '{meant}'?"


def test_unknown_name_that_resembles_nothing_gets_no_suggestion() -> None:
    assert refused(zzzzqqqq=1).message == "unknown option '--zzzzqqqq'"


def test_options_of_another_recipe_are_unknown() -> None:
    with pytest.raises(InputError, match="unknown option '--mlm_probability'"):
        configure(CAUSAL_LM, {"mlm_probability": 0.2})


def test_no_name_is_in_two_groups() -> None:
    names = [
        name
        for group in groups_of(MASKED_LM).values()
        for option in group.values()
        for name in (option.name, *option.aliases)
    ]
    assert len(names) == len(set(names))


# --- values ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", "fast"),
        ("learning_rate", "nan"),
        ("learning_rate", "-1e-9"),
        ("learning_rate", 101),
        ("learning_rate", "inf"),
        ("num_train_epochs", 0),
        ("max_steps", -2),
        ("per_device_train_batch_size", 0),
        ("gradient_accumulation_steps", "1.5"),
        ("seed", -1),
        ("seed", 2**32),
        ("block_size", 1),
        ("mlm_probability", 0),
        ("mlm_probability", 1),
        ("eval_mlm_probability", "nan"),
        ("test_size", 1),
        ("validation_split_percentage", 100),
        ("max_train_samples", 0),
        ("train_tokenizer", 299),
        ("save_strategy", "never"),
        ("bf16", "maybe"),
        ("dataset_name", 3),
        ("adam_beta1", "x"),
        ("adam_beta1", "nan"),
    ],
)
def test_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    assert refused(**{name: value}).message.startswith(f"--{name} cannot be ")


def test_zero_steps_are_refused() -> None:
    assert refused(max_steps=0).message == "--max_steps cannot be 0"


def test_false_as_text_is_not_true() -> None:
    request = ask(bf16="false", dry_run="False", gradient_checkpointing="false")
    assert request.training["bf16"] is False
    assert request.output.dry_run is False
    assert request.training["gradient_checkpointing"] is False


# --- contradictions ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model_name_or_path", "model_type"),
        ("model_name_or_path", "config_name"),
        ("model_name_or_path", "config_overrides"),
        ("model_name_or_path", "train_tokenizer"),
        ("model_type", "config_name"),
        ("tokenizer_name", "train_tokenizer"),
    ],
)
def test_contradiction_names_both_flags(one: str, other: str) -> None:
    assert refused(**{one: "500", other: "500"}).message == f"--{one} and --{other} exclude each other"


def test_contradiction_is_found_behind_aliases() -> None:
    assert (
        refused(model="m", model_type="roberta").message == "--model_name_or_path and --model_type exclude each other"
    )


@pytest.mark.parametrize("source", ["model_type", "config_name"])
def test_new_model_needs_a_tokenizer(source: str) -> None:
    error = refused(**{source: "roberta"})
    assert error.message == f"--{source} makes a new model, which needs a tokenizer"
    assert ask(**{source: "roberta", "tokenizer_name": "t"}).model.tokenizer_name == "t"


# --- several problems ---


def test_all_problems_are_told_at_once() -> None:
    error = refused(
        model="m",
        **FRESH,
        learning_rat=1,
        block_size=1,
        max_steps=0,
        trust_remote_code=True,
        do_eval=False,
        seed=1,
        **{"se-ed": 2, "max-seq-length": 3},
    )
    assert error.message.split("; ") == [
        "--block_size is given twice, as 'block_size' and as 'max-seq-length'",
        "--do_eval false: a run always trains and evaluates",
        "--model_name_or_path and --model_type exclude each other",
        "--model_name_or_path and --train_tokenizer exclude each other",
        "unknown option '--learning_rat', did you mean 'learning_rate'?",
        "unknown option '--se_ed', did you mean 'seed'?",
        "--max_steps cannot be 0",
        "--trust_remote_code needs --revision with a full commit id",
    ]
    assert error.hint.count("give one of the two") == 1, "a hint that is the same is given once"
    assert error.hint.count("--help-all") == 1


def test_one_value_that_is_wrong_does_not_hide_another() -> None:
    error = refused(block_size=1, learning_rate="fast")
    assert [part.partition(" cannot")[0] for part in error.message.split("; ")] == ["--block_size", "--learning_rate"]


def test_problems_of_flags_and_of_the_file_are_told_together() -> None:
    with pytest.raises(InputError) as caught:
        configure(dataclasses.replace(MASKED_LM, starter=None), {"seed": -1}, {"blocksize": 3})
    assert [part.split(":")[0] for part in caught.value.message.split("; ")] == [
        "masked-lm needs a model",
        "unknown option '--blocksize', did you mean 'block_size'?",
        "--seed cannot be -1",
    ]


def test_remote_code_needs_a_full_commit_id() -> None:
    for revision in ("main", "v1", "a" * 39, "A" * 40):
        assert "--trust_remote_code needs" in refused(model="m", trust_remote_code=True, revision=revision).message
    assert "--trust_remote_code needs" in refused(model="m", trust_remote_code="true").message
    assert ask(model="m", trust_remote_code=True, revision="0123456789" * 4).model.trust_remote_code


# --- TrainingArguments ---


@pytest.mark.parametrize("name", REFUSED)
def test_refused_field_says_why(name: str) -> None:
    error = refused(**{name: "1"})
    assert error.message == f"--{name} is not supported: {REFUSED[name]}"
    assert error.hint == f"leave --{name} out"


def test_every_refused_or_own_name_is_a_field_of_training_arguments() -> None:
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert fields >= {*REFUSED, *OURS}
    assert fields == {*REFUSED, *OURS, *training_options()}


OTHERS: dict[str, tuple[Any, Any]] = {
    "adam_beta1": ("0.8", 0.8),
    "adam_beta2": (".98", 0.98),
    "adam_epsilon": ("1e-6", 1e-6),
    "data_seed": ("7", 7),
    "dataloader_drop_last": ("true", True),
    "dataloader_num_workers": ("2", 2),
    "eval_delay": ("3", 3.0),
    "eval_steps": ("5", 5),
    "eval_on_start": ("true", True),
    "full_determinism": ("true", True),
    "logging_first_step": ("true", True),
    "logging_steps": ("3", 3),
    "logging_strategy": ("epoch", "epoch"),
    "lr_scheduler_kwargs": ('{"num_cycles": 2}', {"num_cycles": 2}),
    "neftune_noise_alpha": ("0.1", 0.1),
    "optim": ("adafactor", "adafactor"),
    "optim_args": ("a=1", "a=1"),
    "run_name": ("mine", "mine"),
    "save_only_model": ("true", True),
    "torch_empty_cache_steps": ("4", 4),
    "use_cpu": ("true", True),
    "weight_decay": ("0.01", 0.01),
    "lr_scheduler_type": ("cosine", "cosine"),
    "warmup_steps": ("0.1", 0.1),
    "max_grad_norm": ("0", 0.0),
    "eval_strategy": ("epoch", "epoch"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_field_of_training_arguments_arrives_as_typed(name: str, tmp_path: Path) -> None:
    typed, expected = OTHERS[name]
    request = ask(model="m", **{name: typed})
    arguments = training_arguments(request.training, tmp_path, steps=100)
    assert getattr(arguments, name) == expected
    assert getattr(TrainingArguments(output_dir=str(tmp_path)), name) != expected


def test_the_trainer_removes_no_checkpoints(tmp_path: Path) -> None:
    request = ask(model="m", save_total_limit="2")
    assert request.training["save_total_limit"] == 2
    assert training_arguments(request.training, tmp_path, steps=100).save_total_limit is None


def test_every_default_is_accepted_by_name_and_changes_nothing(tmp_path: Path) -> None:
    defaults = {name: option.default for name, option in training_options().items() if name not in ("do_train",)}
    defaults.pop("do_eval")
    named = training_arguments(configure(MASKED_LM, {**defaults, "model": "m"}).training, tmp_path, 0).to_dict()
    plain = training_arguments(configure(MASKED_LM, {"model": "m"}).training, tmp_path, 0).to_dict()
    assert {name for name in plain if plain[name] != named[name]} <= {"logging_steps"}


def test_defaults_are_those_of_training_arguments(tmp_path: Path) -> None:
    theirs = TrainingArguments(output_dir=str(tmp_path))
    ours = training_arguments(ask(model="m").training, tmp_path, 0)
    for field in dataclasses.fields(TrainingSettings):
        assert getattr(ours, field.name) == getattr(theirs, field.name), field.name


def test_model_that_is_named_gets_no_starter_settings() -> None:
    declared = {field.name: field.default for field in dataclasses.fields(TrainingSettings)}
    assert ask(model="m").training == declared


def test_what_would_hide_divergence_or_write_elsewhere_is_ours(tmp_path: Path) -> None:
    arguments = training_arguments({}, tmp_path, steps=400)
    assert arguments.output_dir == str(tmp_path / "checkpoints")
    assert arguments.logging_nan_inf_filter is False
    assert arguments.remove_unused_columns is False
    assert arguments.logging_steps == 20
    assert training_arguments({}, tmp_path, steps=3).logging_steps == 1


def test_arguments_that_do_not_go_together_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training arguments: .*load_best_model_at_end"):
        training_arguments({"load_best_model_at_end": True, "eval_strategy": "no"}, tmp_path, 10)
    with pytest.raises(InputError, match="'adafactr' is not a valid OptimizerNames, did you mean 'adafactor'"):
        training_arguments({"optim": "adafactr"}, tmp_path, 10)


def test_json_that_is_damaged_is_bad_input(tmp_path: Path) -> None:
    request = ask(model="m", lr_scheduler_kwargs='{"num_cycles": ')
    with pytest.raises(InputError, match="training arguments"):
        training_arguments(request.training, tmp_path, 10)


@pytest.mark.parametrize(
    ("given", "meant"), [("true", True), (True, True), ("false", False), ("auto", "auto"), ("some/dir", "some/dir")]
)
def test_resumption_is_a_truth_or_a_folder(given: Any, meant: Any) -> None:
    assert ask(model="m", resume_from_checkpoint=given).output.resume_from_checkpoint == meant


# --- starter ---


@pytest.mark.parametrize("recipe", [MASKED_LM, CAUSAL_LM], ids=lambda recipe: recipe.name)
def test_nothing_named_starts_the_recipes_own_small_model_on_its_own_text(recipe: Recipe) -> None:
    starter = recipe.starter
    assert starter is not None
    request = configure(recipe, {})
    assert request.starts_small
    assert request.sample == starter.sample
    arrived = {**vars(request.options), **vars(request.model), **request.training}
    assert {name: arrived[name] for name in {**starter.model, **starter.training}} == starter.model | starter.training
    assert request.given == frozenset()


@pytest.mark.parametrize("source", [{"model": "m"}, FRESH, {"config_name": "c", "tokenizer_name": "t"}])
def test_starter_stays_out_when_a_model_is_named(source: dict[str, Any]) -> None:
    request = ask(**source)
    assert not request.starts_small
    assert request.training["learning_rate"] == 5e-5
    assert request.model.config_overrides is None
    assert request.sample == MASKED_LM.starter.sample


def test_data_that_is_named_replaces_the_sample_only() -> None:
    request = ask(train_file="a.txt")
    assert request.sample is None
    assert request.starts_small


def test_given_values_win_over_the_starter() -> None:
    small = MASKED_LM.starter.model["config_overrides"]
    request = ask(learning_rate=1e-5, config_overrides="hidden_size=8", train_tokenizer=600)
    assert request.training["learning_rate"] == 1e-5
    assert (request.model.config_overrides, request.model.train_tokenizer) == (f"{small},hidden_size=8", 600)
    assert request.model.model_type == "modernbert"


def test_tokenizer_that_is_named_replaces_training_one() -> None:
    assert ask(tokenizer_name="t").model.train_tokenizer is None


def test_steps_that_are_given_replace_the_starters_epochs() -> None:
    assert CAUSAL_LM.starter is not None
    recipe = dataclasses.replace(
        CAUSAL_LM, starter=dataclasses.replace(CAUSAL_LM.starter, training={"max_steps": 9, "learning_rate": 0.5})
    )
    assert configure(recipe, {}).training["max_steps"] == 9
    assert configure(recipe, {"num_train_epochs": 2}).training["max_steps"] == -1
    assert configure(recipe, {"num_train_epochs": 2}).training["learning_rate"] == 0.5


def test_recipe_without_a_starter_needs_a_model() -> None:
    recipe = dataclasses.replace(MASKED_LM, starter=None)
    with pytest.raises(InputError, match="masked-lm needs a model"):
        configure(recipe, {})
    assert configure(recipe, {"model": "m"}).sample is None


# --- run_mlm.py's habits ---


@pytest.mark.parametrize("value", [True, "true", "1", 1])
@pytest.mark.parametrize("name", ["do_train", "do_eval"])
def test_doing_what_a_run_always_does_is_accepted(name: str, value: Any) -> None:
    assert name not in ask(model="m", **{name: value}).training


@pytest.mark.parametrize("name", ["do_train", "do_eval"])
def test_not_doing_it_is_refused(name: str) -> None:
    assert refused(**{name: "false"}).message == f"--{name} false: a run always trains and evaluates"


# --- YAML ---


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_gives_values_under_any_name(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path, "model: m\nmax-seq-length: 64\nlearning_rate: 1e-4\ntrain_file: [a.txt, b.txt]\nbf16: no\n"
    )
    request = configure(MASKED_LM, {}, read_yaml(path))
    assert request.model.model_name_or_path == "m"
    assert request.options.block_size == 64
    assert request.training["learning_rate"] == 1e-4
    assert request.data.train_file == ["a.txt", "b.txt"]
    assert request.training["bf16"] is False


@pytest.mark.parametrize("name", ["block_size", "max_seq_length", "block-size"])
def test_flags_win_over_yaml_under_whichever_name(name: str, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "max_seq_length: 64\nmodel: m\n")
    assert configure(MASKED_LM, {name: 32}, read_yaml(path)).options.block_size == 32
    assert configure(MASKED_LM, {name: None}, read_yaml(path)).options.block_size == 64


def test_flags_win_over_yaml_in_a_run(tmp_path: Path, text_file: Path) -> None:
    path = yaml_file(tmp_path, f"max_seq_length: 64\ntrain_file: {text_file}\ndry_run: true\nmax_steps: 5\n")
    plan = lmtasks.run("masked-lm", config=path, block_size=32, train_tokenizer=400, output_dir=str(tmp_path / "out"))
    assert isinstance(plan, Plan)
    assert (plan.block_size, plan.steps) == (32, 5)


def test_unknown_key_in_yaml_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown option '--learning_rte', did you mean 'learning_rate'"):
        configure(MASKED_LM, {}, read_yaml(yaml_file(tmp_path, "learning_rte: 1\n")))


def test_empty_yaml_value_counts_as_not_given(tmp_path: Path) -> None:
    request = configure(MASKED_LM, {"model": "m"}, read_yaml(yaml_file(tmp_path, "block_size:\n")))
    assert (request.options.block_size, request.given) == (128, {"model_name_or_path"})


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words\n", "3\n", "1: a\n", "~\n"])
def test_yaml_that_is_no_mapping_of_names_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must hold 'name: value' lines"):
        read_yaml(yaml_file(tmp_path, text))


@pytest.mark.parametrize(
    "content", [b"a: [1,\n", b"a: b: c\n", b"\tx: 1\n", b"name: \xff\xfe\n", b"a: !!python/name:os.system\n"]
)
def test_what_is_not_yaml_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.yaml' is not YAML") as caught:
        read_yaml(path)
    assert "\n" not in caught.value.message


def test_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read --config '.*none\.yaml': No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"cannot read --config '.*': Is a directory"):
        read_yaml(tmp_path)


# --- the record ---


def test_record_tells_requests_apart_but_not_a_resumption_or_what_only_memory_holds() -> None:
    one = ask(model="m", train_dataset=["text"])
    assert as_record(one) == as_record(ask(model="m", train_dataset=["text"], resume_from_checkpoint=True))
    assert as_record(one) != as_record(ask(model="m", train_dataset=["text"], learning_rate=1e-3))
    assert as_record(one) != as_record(ask(model="m", train_dataset=["text"], block_size=64))
    assert "train_dataset" not in as_record(one)["settings"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_flags_of_the_old_scripts_say_what_is_instead(name: str) -> None:
    with pytest.raises(InputError, match="does not exist here") as caught:
        ask(**{name: "true"})
    assert ELSEWHERE[name] in caught.value.message


# --- text that somebody marked as text ---


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('seed: "42"', "--seed cannot be the text '42': it must be a whole number at least 0 and below 4.29497e+09"),
        ("learning_rate: '1e-4'", "--learning_rate cannot be the text '1e-4': it must be a number"),
        ("seed: |-\n  42", "--seed cannot be the text '42'"),
        ('bf16: "true"', "--bf16 cannot be the text 'true': it must be true or false"),
        ('max_train_samples: "none"', "--max_train_samples cannot be the text 'none'"),
    ],
)
def test_text_in_quotes_is_no_number(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(line)
    with pytest.raises(InputError) as caught:
        configure(MASKED_LM, {}, read_yaml(tmp_path / "a.yaml"))
    assert says in caught.value.message
    assert caught.value.hint == "write it without quotes"


def test_text_in_quotes_is_text_and_words_are_what_they_look_like(tmp_path: Path) -> None:
    lines = [
        "learning_rate: 1e-4",
        'text_column: "42"',
        "train_file: ['1.txt', \"2.txt\"]",
        'eval_strategy: "steps"',
        "lr_scheduler_kwargs: {'min_lr': 0.5}",
        'report_to: "none"',
        "max_train_samples: none",
    ]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    request = configure(MASKED_LM, {"seed": "42"}, read_yaml(tmp_path / "a.yaml"))
    assert (request.seed, request.training["learning_rate"], request.data.text_column) == (42, 1e-4, "42")
    assert request.data.train_file == ["1.txt", "2.txt"]
    assert request.training["lr_scheduler_kwargs"] == {"min_lr": 0.5}
    assert request.data.max_train_samples is None
    texts = [request.data.text_column, *request.data.train_file, *request.training["lr_scheduler_kwargs"]]
    assert {type(text) for text in texts} == {str}


def test_a_number_of_a_mix_in_quotes_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("sources: [{name: a, train_file: a.txt, weight: '1'}]")
    with pytest.raises(InputError, match="weight cannot be '1': it must be a number"):
        configure(MASKED_LM, {"data": str(tmp_path / "a.yaml")})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a {b: *a}", "line 1: this is a part of itself"),
        ("a: &a [1, 2, 3, 4, 5, 6, 7, 8]\n" + "\n".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 8)}]" for n in range(12)
        ), "unfolds to more than 100,000 values"),
        ("seed: " + "[" * 3000, "is nested too deeply"),
    ],
    ids=["circle", "bomb", "deep"],
)  # fmt: skip
def test_yaml_that_never_ends_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", ["per_device_train_batch_size", "block_size", "max_train_samples"])
def test_numbers_have_an_end(name: str) -> None:
    for value in (2**63, str(10**19)):
        assert "the largest whole number is 9223372036854775807" in refused(**{name: value}).message
    ask(**{name: 2**63 - 1})


def test_epochs_have_an_end() -> None:
    assert "--num_train_epochs cannot be 1e+300: it must be" in refused(num_train_epochs=1e300).message


def test_no_evaluation_every_zero_steps() -> None:
    assert "--eval_steps cannot be 0" in refused(eval_steps=0).message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"torch_compile_mode": "defualt"}, "--torch_compile_mode: unknown mode 'defualt', did you mean 'default'"),
        ({"accelerator_config": "gone.json"}, "gone.json"),
    ],
)
def test_training_arguments_of_no_file_and_no_mode(values: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        training_arguments(values, tmp_path, 1)


def test_no_compiling_on_a_cpu_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(InputError, match="--torch_compile needs a C\\+\\+ compiler") as caught:
        training_arguments({"torch_compile": True, "use_cpu": True}, tmp_path, 1)
    assert "g++" in caught.value.hint
    training_arguments({"torch_compile_backend": "aot_eager", "use_cpu": True}, tmp_path, 1)


@pytest.mark.parametrize("name", ["model", "tokenizer_name", "text_column", "csv_separator", "encoding", "revision"])
def test_a_text_that_is_empty_is_no_value(name: str) -> None:
    own = {"model": "model_name_or_path"}.get(name, name)
    assert f"--{own} is empty" in refused(**{name: ""}).message


@pytest.mark.parametrize("folder", ["x" * 256, "é" * 128, "a\0b", "ok/" + "x" * 300 + "/ok"])
def test_what_no_folder_can_be_called_is_refused(folder: str) -> None:
    assert "is no name of a file or folder" in refused(output_dir=folder).message
    ask(output_dir="x" * 255)


def test_what_is_no_file_of_settings_is_refused() -> None:
    with pytest.raises(InputError, match="--config cannot be a dict: it must be the name of a file"):
        lmtasks.run("masked-lm", config={"seed": 1})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="recipe cannot be a int"):
        lmtasks.run(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PEERS)
def test_a_name_of_another_tool_leads_to_ours(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown option '--{name}'") as caught:
        configure(MASKED_LM, {name: "1"})
    there = PEERS[name].partition(",")[0].split()[0]
    assert caught.value.hint == f"here it is --{PEERS[name]}"
    options = [option for group in groups_of(MASKED_LM).values() for option in group.values()]
    known = {spelling for option in options for spelling in (option.name, *option.aliases)}
    launchers = lmtasks.load_catalog().launchers
    known |= {*FLAGS, *(flag for launcher in launchers.values() for flag in launcher.flags)}
    launcher = there.partition(".")[0]
    assert there in known or (launcher in LAUNCHERS and launcher not in launchers)


@pytest.mark.parametrize("told", ["masked-lm", "masked_lm", "lmtasks:masked-lm"])
def test_a_config_may_say_its_recipe(told: str) -> None:
    assert configure(MASKED_LM, {}, {"recipe": told, "learning_rate": 1e-3}).training["learning_rate"] == 1e-3


def test_a_config_of_another_recipe() -> None:
    with pytest.raises(InputError, match="the config is for the recipe 'causal-lm', and this is masked-lm"):
        configure(MASKED_LM, {}, {"recipe": "causal-lm"})
