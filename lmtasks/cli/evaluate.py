"""``lmtasks evaluate``: the figures of a run or of any model."""

from __future__ import annotations

from lmtasks.cli.answers import figure_lines, tell_rows
from lmtasks.cli.argv import asks_help, loose
from lmtasks.cli.launching import add_launch_flags, taken_launch
from lmtasks.cli.lookup import fitting, found, installed
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.progress import quiet


def command(words: list[str]) -> int:
    """Measure, and print the figures."""
    parser = Parser(
        prog="lmtasks evaluate",
        usage="lmtasks evaluate RUN_OR_MODEL [flags]",
        description="The figures of a run or of any model; a run on its own held-out text unless data is given.",
    )
    parser.add_argument("--recipe", metavar="NAME", help="recipe to evaluate as; found out when not given")
    name = words.pop(0) if words and not words[0].startswith("-") else ""
    if not name and not asks_help(words):
        raise InputError("evaluate needs a run or a model", "lmtasks evaluate RUN_OR_MODEL")
    given, _ = loose(words)
    wanted = given.get("recipe")
    if asks_help(words):
        catalog, known = found(wanted, light=True) if wanted else (installed(light=True), "")
        recipe = catalog.recipes[known or next(iter(catalog.recipes))]
    else:
        quiet()
        catalog, recipe = fitting(name, wanted, given.get("revision", "main"))
    add_launch_flags(parser, catalog)
    values = typed_flags(parser, recipe, words, trains=False)
    as_json = values.pop("json", False)
    if launch := taken_launch(values, catalog):
        asked = {key: value for key, value in values.items() if key != "recipe"} | {"model_name_or_path": name}
        return launch.exit_code("evaluate", [name, *words], catalog.watched(recipe), asked, restarts=False)
    values["recipe"] = catalog.name_of(recipe)
    from lmtasks.runs.standalone_evaluation import evaluate_as

    metrics, perplexity = evaluate_as(name, **values)
    if not World.current().is_main:
        return 0
    return tell_rows(metrics, figure_lines(metrics, perplexity), as_json=as_json)
