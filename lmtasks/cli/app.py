"""The command line. Light at the top: a command that only tells imports nothing heavy.

Results go to stdout, progress and warnings to stderr; ``--json`` prints one JSON document.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmtasks import __version__
from lmtasks.cli.argv import loose, scalars, taken_switch, taken_values, underscored
from lmtasks.cli.report import _figures, _print_json, _report
from lmtasks.errors import InputError, LmtasksError, RunError, nearest
from lmtasks.registry.enabled_plugins import also, current, file_of, remember, selected

if TYPE_CHECKING:
    from lmtasks.api import Option, Recipe
    from lmtasks.cli.parser import Parser
    from lmtasks.registry.catalog import Catalog

USAGE = """\
usage: lmtasks COMMAND ...

From text to a language model of your own, and on to the Hub.

  lmtasks run RECIPE [flags]              train; with no flags, a small model in a minute
  lmtasks predict RUN_OR_MODEL TEXT...    use it
  lmtasks evaluate RUN_OR_MODEL [flags]   measure it
  lmtasks push RUN REPO_ID                publish it
  lmtasks list                            the recipes that are installed
  lmtasks show RECIPE                     one recipe in detail
  lmtasks schema RECIPE                   what its YAML may hold, as JSON Schema
  lmtasks architectures [RECIPE]          the model types that it trains, and what is known of each
  lmtasks plugins                         what brought the recipes, and what is broken
  lmtasks doctor                          what is installed, what is there, and what is broken
  lmtasks new-plugin NAME                 a package with a recipe or an architecture of your own

RECIPE is a name from the list, PACKAGE:NAME where two packages have it, or ./my_recipe.py.

  lmtasks COMMAND --plugin MODULE         count a module as a plugin, too
  lmtasks COMMAND --no_plugins            the built-in recipes only
  lmtasks COMMAND --help                  the flags of a command
  lmtasks --version

start with:  lmtasks run masked-lm
"""

TITLES = {"options": "recipe", "data": "data", "model": "model", "output": "output", "training": "training"}

SWITCHES = ("do_sample", "return_full_text", "use_cache", "clean_up_tokenization_spaces", "renormalize_logits")
"""Pipeline arguments that are a plain yes on the command line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit code: 0 done, 2 bad input, 3 the run failed, 130 or 143 interrupted. Anything
        unexpected keeps its traceback, and Python exits 1.
    """
    words = underscored(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            return _selecting(words)
        finally:
            # Here a closed pipe can be dealt with; when Python flushes on its way out it cannot.
            sys.stdout.flush()
    except LmtasksError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has heard enough (lmtasks list | head -1).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _selecting(words: list[str]) -> int:
    """Carry out a command with the plugins that it wants, wherever it says so."""
    builtins_only, words = taken_switch(words, "no_plugins")
    named, words = taken_values(words, "plugin")
    sources = [file[0] if (file := file_of(name)) else name for name in named]
    with selected(sources, builtins_only=builtins_only):
        return _dispatch(words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"lmtasks {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise InputError(f"unknown command '{command}'{nearest(command, COMMANDS)}", "lmtasks --help")
    return COMMANDS[command](rest)


def _asks_help(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words


def _catalog(*, light: bool = False) -> Catalog:
    # Not at the top: reading the metadata of what is installed is most of what a start costs.
    from lmtasks.registry.catalog import load_catalog

    return load_catalog(light=light)


def _found(word: str, *, light: bool) -> tuple[Catalog, str]:
    """The catalog, and its name of the recipe that was typed, which may be in a file.

    Args:
        light: import what is heavy only if the recipe is nowhere else.
    """
    _count_file(word)
    catalog = _catalog(light=light)
    try:
        return catalog, catalog.find(word)
    except InputError:
        if not any(plugin.slow for plugin in catalog.plugins):
            raise
    catalog = _catalog()
    return catalog, catalog.find(word)


def _count_file(word: str) -> None:
    if file := file_of(word):
        also(file[0])


# --- telling: without a parser, because importing one takes longer than the answer ---


def _told(
    words: Sequence[str],
    usage: str,
    names: int = 0,
    switches: Sequence[str] = ("json",),
    most: int | None = 0,
) -> tuple[list[str], set[str]]:
    """The names that such a command was given, and which of its switches.

    Args:
        names: how many it needs.
        most: how many more it takes; None is any number.
    """
    usage = " ".join(["usage:", usage, "[--plugin MODULE] [--no_plugins]", *(f"[--{name}]" for name in switches)])
    if _asks_help(words):
        print(usage)
        raise SystemExit(0)
    flags, given = loose(words, switches)
    unknown = [f"--{flag}" for flag in flags if flag not in switches]
    unknown += [] if most is None else given[names + most :]
    if unknown:
        raise InputError(f"unexpected '{unknown[0]}'", usage)
    if len(given) < names:
        raise InputError("a name is missing", usage)
    return given, {name for name, value in flags.items() if value.lower() != "false"}


def _list(words: list[str]) -> int:
    _, said = _told(words, "lmtasks list", switches=("all", "json"))
    from lmtasks.cli.list_cache import recipe_rows

    rows, notes = recipe_rows(everything="all" in said)
    for line in notes:
        print(f"warning: {line}", file=sys.stderr)
    if "json" in said:
        _print_json(rows)
        return 0
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")
    return 0


def _show(words: list[str]) -> int:
    (word,), said = _told(words, "lmtasks show RECIPE", names=1)
    catalog, name = _found(word, light=True)
    described = _described(catalog, name)
    if "json" in said:
        _print_json(described)
        return 0
    print(f"{name}: {described['summary']}\n")
    for key in ("owner", "model_class", "pipeline", "attention", "metrics"):
        print(f"{key:<12} {described[key]}")
    print("\noptions")
    for option in described["options"]:
        print(f"  --{option['name']:<24} {option['help']} (default: {option['default']})")
    print(f"\ntry  lmtasks run {word}")
    return 0


def _described(catalog: Catalog, name: str) -> dict[str, Any]:
    from lmtasks.api import describe, options_of
    from lmtasks.cli.list_cache import recipe_row

    recipe = catalog.recipes[name]
    return {
        **recipe_row(catalog, name),
        "model_class": recipe.model_class,
        "pipeline": recipe.pipeline,
        "attention": recipe.attention,
        "metrics": ", ".join(recipe.metrics),
        "options": [
            {"name": option.name, "type": describe(option), "default": option.default, "help": option.help}
            for option in options_of(recipe.options).values()
        ],
    }


def _schema(words: list[str]) -> int:
    (word,), _ = _told(words, "lmtasks schema RECIPE", names=1)
    catalog, name = _found(word, light=False)
    from lmtasks.config.json_schema import schema_of

    _print_json(schema_of(catalog.recipes[name]))
    return 0


def _plugins(words: list[str]) -> int:
    _, said = _told(words, "lmtasks plugins")
    catalog = _catalog(light=True)
    if "json" in said:
        _print_json([{"name": plugin.name, **vars(plugin)} for plugin in catalog.plugins])
        return 0
    for plugin in catalog.plugins:
        print(f"{plugin.title}: {plugin.state}")
    return 0


def _architectures(words: list[str]) -> int:
    prove, words = taken_switch(words, "prove")
    given, said = _told(words, "lmtasks architectures [RECIPE] [--prove TYPE...]", most=None)
    word, kinds = (given or ["masked-lm"])[0], given[1:]
    if kinds and not prove:
        raise InputError(f"unexpected '{kinds[0]}'", f"lmtasks architectures {word} --prove {kinds[0]}")
    catalog, name = _found(word, light=not prove)
    recipe = catalog.recipes[name]
    if prove:
        return _proved(recipe, catalog, kinds, as_json="json" in said)
    from lmtasks.registry.support import heading, rows

    known = rows(recipe, catalog)
    if "json" in said:
        _print_json([row.as_json() for row in known])
        return 0
    print(f"{name}, {recipe.model_class.partition(':')[2]}, {heading()}")
    for row in known:
        print(row.line())
    return 0


def _proved(recipe: Recipe, catalog: Catalog, kinds: list[str], *, as_json: bool) -> int:
    """Measure what else is only looked up; the exit code says whether all of it runs."""
    _quiet()
    from lmtasks.testing.survey import survey

    found = []
    for row, proof in survey(recipe, catalog, kinds):
        checks = {name: str(outcome) for name, outcome in proof.checks.items()} if proof else {}
        found.append({**row.as_json(), "checks": checks})
        if not as_json:
            print(row.line(), flush=True)
    if as_json:
        _print_json(found)
    return 0 if all(row["state"] != "refused" for row in found) else RunError.exit_code


def _doctor(words: list[str]) -> int:
    _, said = _told(words, "lmtasks doctor")
    from lmtasks.cli.doctor import examine, lines

    found = examine(_catalog(light=True))
    _print_json(found) if "json" in said else print("\n".join(lines(found)))
    if problems := found["problems"]:
        raise RunError(
            f"{len(problems)} broken: {'; '.join(problems)}", "see what each says; --no_plugins does without"
        )
    return 0


# --- doing ---


def _run(words: list[str]) -> int:
    from lmtasks.cli.parser import Parser

    if not words or words[0].startswith("-"):
        if _asks_help(words):
            print(
                "usage: lmtasks run RECIPE [flags]\n\n"
                "lmtasks list shows the recipes; lmtasks run RECIPE --help its flags"
            )
            return 0
        raise InputError("run needs a recipe", f"one of: {', '.join(_catalog(light=True).recipes)}")
    catalog, name = _found(words[0], light=_asks_help(words) or "--help_all" in words)
    recipe = catalog.recipes[name]
    prog = f"lmtasks run {words[0]}"
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=recipe.summary)
    values = _typed_flags(parser, recipe, words[1:], tuple(TITLES))
    as_json = values.pop("json", False)
    _quiet()
    from lmtasks.progress import is_main_process
    from lmtasks.registry.loader import location
    from lmtasks.runs.runner import Run, run

    for source in current().named:
        remember(source, "" if file_of(source) else location(source))
    result = run(name, **values)
    if not is_main_process():
        return 0
    if not isinstance(result, Run):
        _print_json(result.as_dict()) if as_json else print("\n".join(result.lines()))
        return 0
    if as_json:
        _print_json({"output_dir": str(result.output_dir), "url": result.url, "metrics": result.metrics})
    else:
        _report(result)
    return 0


def _typed_flags(parser: Parser, recipe: Recipe, words: list[str], groups: Sequence[str]) -> dict[str, Any]:
    """The flags of a command that takes a recipe's options and settings, as typed."""
    from lmtasks.cli.parser import add_options
    from lmtasks.config.request import groups_of

    declared = groups_of(recipe)
    trains = "training" in groups
    for group in groups:
        options = [option for option in declared[group].values() if trains or not option.training_only]
        add_options(parser, TITLES[group], options)
    other = parser.add_argument_group("other")
    other.add_argument("--config", metavar="FILE", help="YAML file with any of these; flags win over it")
    _add_last(other)
    if trains:
        other.add_argument("--help_all", action="store_true", help="show this and every field of TrainingArguments")
    if trains and "--help_all" in words:
        _add_training(parser, declared["training"])
    if _asks_help(words) or "--help_all" in words:
        parser.print_help()
        raise SystemExit(0)
    typed, unknown = parser.parse_known_args(words)
    # The rest are fields of TrainingArguments or mistakes; the runner's configuration knows which.
    more, stray = loose(unknown)
    if stray:
        raise InputError(f"unexpected '{stray[0]}'", "put texts with spaces in quotes; flags start with --")
    return {**more, **vars(typed)}


def _add_last(group: Any, as_json: str = "one JSON document on stdout") -> None:
    """The flags that come last in ``--help``; plugins are chosen before anybody knows the command."""
    group.add_argument("--json", action="store_true", help=as_json)
    group.add_argument("--plugin", metavar="MODULE", help="count a module, or a file, as a plugin; may come again")
    group.add_argument("--no_plugins", action="store_true", help="the built-in recipes only")
    group.add_argument("--help", "-h", action="store_true", help="show this")


def _add_training(parser: Parser, declared: Mapping[str, Option]) -> None:
    from lmtasks.cli.parser import add_options
    from lmtasks.config.training_arguments import training_options

    more = [option for name, option in training_options().items() if name not in declared]
    add_options(parser, "every other field of TrainingArguments", more)


def _quiet() -> None:
    """Silence what the libraries say by the way; what matters to a person, lmtasks says itself."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def _evaluate(words: list[str]) -> int:
    from lmtasks.cli.parser import Parser

    parser = Parser(
        prog="lmtasks evaluate",
        usage="lmtasks evaluate RUN_OR_MODEL [flags]",
        description="The figures of a run or of any model; a run on its own held-out text unless data is given.",
    )
    parser.add_argument("--recipe", metavar="NAME", help="recipe to evaluate as; found out when not given")
    if not words or words[0].startswith("-"):
        if not _asks_help(words):
            raise InputError("evaluate needs a run or a model", "lmtasks evaluate RUN_OR_MODEL")
        name = ""
    else:
        name, words = words[0], words[1:]
    wanted = loose(words)[0].get("recipe")
    if _asks_help(words):
        catalog, known = _found(wanted, light=True) if wanted else (_catalog(light=True), "")
        recipe = catalog.recipes[known] if known else next(iter(catalog.recipes.values()))
    else:
        _quiet()
        from lmtasks.inference.predictor import recipe_of

        wanted = _wanted(name, wanted)
        catalog = _catalog()
        recipe = recipe_of(name, catalog, wanted, loose(words)[0].get("revision", "main"))
    values = _typed_flags(parser, recipe, words, ("options", "data", "model"))
    as_json = values.pop("json", False)
    values.pop("recipe", None)
    from lmtasks.runs.standalone_evaluation import evaluate_as

    metrics, perplexity = evaluate_as(name, recipe=catalog.name_of(recipe), **values)
    _print_json(metrics) if as_json else print("\n".join(_figures(metrics, perplexity)))
    return 0


def _wanted(run_or_model: str, typed: str | None) -> str | None:
    """The recipe that was typed, or the one that a run was made with, by a name that finds it."""
    if typed:
        _count_file(typed)
        return typed
    from lmtasks.artifacts.run_folder import read_record
    from lmtasks.registry.catalog import recorded

    record = read_record(run_or_model)
    if record is None or record.get("status") != "done":
        return None
    source, name = recorded(record)
    if source:
        also(source)
    return name


def _predict(words: list[str]) -> int:
    from lmtasks.cli.parser import Parser

    parser = Parser(
        prog="lmtasks predict",
        usage="lmtasks predict RUN_OR_MODEL TEXT... [flags]",
        description="Use a model. Any other flag goes to its pipeline: --top_k 3, --max_new_tokens 100, --do_sample.",
    )
    parser.add_argument("--file", metavar="FILE", help="texts from a file, one a line; - for standard input")
    parser.add_argument(
        "--revision", metavar="NAME", default="main", help="branch, tag or commit of a model on the Hub"
    )
    parser.add_argument("--batch_size", metavar="N", type=int, default=8, help="texts at once (default: 8)")
    parser.add_argument("--recipe", metavar="NAME", help="recipe to predict as; found out when not given")
    _add_last(parser, as_json="the pipeline's own structure, one JSON document")
    if _asks_help(words):
        parser.print_help()
        return 0
    typed, rest = parser.parse_known_args(words)
    arguments, positional = loose(rest, SWITCHES)
    if not positional:
        raise InputError("predict needs a run or a model", "lmtasks predict RUN_OR_MODEL TEXT")
    file = vars(typed).get("file")
    if file and positional[1:]:
        raise InputError(f"texts come from '{file}' and from the command line", "give one of the two")
    texts = positional[1:] or _texts(file)
    _quiet()
    from lmtasks.inference.predictor import predict, recipe_of

    wanted = _wanted(positional[0], vars(typed).get("recipe"))
    catalog = _catalog()
    recipe = recipe_of(positional[0], catalog, wanted, typed.revision)
    outputs = predict(
        positional[0],
        texts,
        recipe=catalog.name_of(recipe),
        revision=typed.revision,
        batch_size=typed.batch_size,
        **scalars(arguments),
    )
    if vars(typed).get("json"):
        _print_json(outputs)
        return 0
    for text, output in zip(texts, outputs, strict=True):
        if len(texts) > 1:
            print(f"{text}")
        for line in recipe.answers(output):
            print(f"  {line}" if len(texts) > 1 else line)
    return 0


def _texts(file: str | None) -> list[str]:
    """Texts from a file or standard input, one a line."""
    if file is None and sys.stdin.isatty():
        raise InputError("predict needs a text", "put it in quotes after the model, or name a --file")
    try:
        if file in (None, "-"):
            lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
        else:
            with open(str(file), encoding="utf-8") as handle:
                lines = handle.read().splitlines()
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}", "give an existing file") from error
    except UnicodeDecodeError as error:
        source = "standard input" if file in (None, "-") else f"'{file}'"
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}", "convert it to UTF-8") from error
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise InputError(f"no text in {'standard input' if file in (None, '-') else repr(file)}", "one text a line")
    return texts


def _push(words: list[str]) -> int:
    from lmtasks.cli.parser import Parser

    parser = Parser(prog="lmtasks push", description="Publish a finished run on the Hub.")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="USER/NAME")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--create_pr", action="store_true", help="as a pull request")
    parser.add_argument("--revision", metavar="NAME", help="branch to publish to")
    parser.add_argument("--commit_message", metavar="TEXT", help="summary of the commit")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--help", "-h", action="store_true", help="show this")
    if _asks_help(words):
        parser.print_help()
        return 0
    typed = vars(parser.parse_args(words))
    from lmtasks.artifacts.publish import push

    url = push(
        typed["run"],
        typed["repo_id"],
        private=typed.get("private", False),
        create_pr=typed.get("create_pr", False),
        revision=typed.get("revision"),
        commit_message=typed.get("commit_message"),
    )
    _print_json({"url": url}) if typed.get("json") else print(url)
    return 0


def _new_plugin(words: list[str]) -> int:
    from pathlib import Path

    from lmtasks.cli.parser import Parser
    from lmtasks.cli.scaffold import KINDS, new_plugin, write_plugin

    parser = Parser(prog="lmtasks new-plugin", description="A package that works, to make your own of.")
    parser.add_argument("name", metavar="NAME", help="of the package, such as lmtasks-shuffle")
    parser.add_argument("--kind", metavar="KIND", default="recipe", help=f"{' or '.join(KINDS)} (default: recipe)")
    parser.add_argument("--output_dir", metavar="FOLDER", help="where to write it (default: ./NAME)")
    _add_last(parser)
    if _asks_help(words):
        parser.print_help()
        return 0
    typed = vars(parser.parse_args(words))
    plugin = new_plugin(typed["name"], typed["kind"], _catalog(light=True))
    folder = Path(typed.get("output_dir") or plugin.name)
    files = write_plugin(plugin, folder)
    if typed.get("json"):
        _print_json({"output_dir": str(folder), "package": plugin.package, plugin.kind: plugin.word, "files": files})
        return 0
    place = folder if folder.is_absolute() else f"./{folder}"
    first = f"lmtasks run {plugin.word}" if plugin.kind == "recipe" else "lmtasks plugins"
    print("\n".join(str(folder / file) for file in files))
    print(f"\ntry next\n  pip install -e {place}\n  {first}\n  pytest {place}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "predict": _predict,
    "evaluate": _evaluate,
    "push": _push,
    "list": _list,
    "show": _show,
    "schema": _schema,
    "architectures": _architectures,
    "plugins": _plugins,
    "doctor": _doctor,
    "new-plugin": _new_plugin,
}
