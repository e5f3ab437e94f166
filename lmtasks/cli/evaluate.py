"""``lmtasks evaluate``: the figures of a run or of any model."""

from __future__ import annotations

from lmtasks.cli.argv import asks_help, loose
from lmtasks.cli.lookup import found, installed
from lmtasks.cli.lookup import wanted as wanted_recipe
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.cli.report import figure_lines, print_json, quiet
from lmtasks.errors import InputError


def command(words: list[str]) -> int:
    """Measure, and print the figures."""
    parser = Parser(
        prog="lmtasks evaluate",
        usage="lmtasks evaluate RUN_OR_MODEL [flags]",
        description="The figures of a run or of any model; a run on its own held-out text unless data is given.",
    )
    parser.add_argument("--recipe", metavar="NAME", help="recipe to evaluate as; found out when not given")
    if not words or words[0].startswith("-"):
        if not asks_help(words):
            raise InputError("evaluate needs a run or a model", "lmtasks evaluate RUN_OR_MODEL")
        name = ""
    else:
        name, words = words[0], words[1:]
    wanted = loose(words)[0].get("recipe")
    if asks_help(words):
        catalog, known = found(wanted, light=True) if wanted else (installed(light=True), "")
        recipe = catalog.recipes[known] if known else next(iter(catalog.recipes.values()))
    else:
        quiet()
        from lmtasks.inference.predictor import recipe_of

        wanted = wanted_recipe(name, wanted)
        catalog = installed()
        recipe = recipe_of(name, catalog, wanted, loose(words)[0].get("revision", "main"))
    values = typed_flags(parser, recipe, words, ("options", "data", "model"))
    as_json = values.pop("json", False)
    values.pop("recipe", None)
    from lmtasks.runs.standalone_evaluation import evaluate_as

    metrics, perplexity = evaluate_as(name, recipe=catalog.name_of(recipe), **values)
    print_json(metrics) if as_json else print("\n".join(figure_lines(metrics, perplexity)))
    return 0
