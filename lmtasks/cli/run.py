"""``lmtasks run``: train a model as a recipe says."""

from __future__ import annotations

import re

from lmtasks.cli.answers import run_lines, tell, tell_rows
from lmtasks.cli.argv import taken_values
from lmtasks.cli.lookup import asked
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.progress import quiet
from lmtasks.registry.enabled_plugins import as_flags, current, file_of, remember


def command(words: list[str]) -> int:
    """Train, and report what came of it."""
    if (recipe_asked := asked(words, "run", "[flags]")) is None:
        return 0
    catalog, name = recipe_asked
    recipe = catalog.watched(catalog.recipes[name])
    prog = f"lmtasks run {words[0]}"
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=recipe.summary)
    parser.add_argument("--num_processes", metavar="N", help="processes of this machine that share the run (torchrun)")
    values = typed_flags(parser, recipe, words[1:], trains=True)
    as_json = values.pop("json", False)
    if (number := _number(values.pop("num_processes", "1"))) > 1:
        from lmtasks.runs.processes import in_processes

        _, others = taken_values(words, "num_processes")
        return in_processes(number, ["run", *others, *as_flags(current())])
    quiet()
    from lmtasks.registry.discovery import location
    from lmtasks.runs.runner import Run, run

    for source in current().named:
        remember(source, "" if file_of(source) else location(source))
    result = run(name, **values)
    if not World.current().is_main:
        return 0
    if not isinstance(result, Run):
        return tell_rows(result.as_dict(), result.lines(), as_json=as_json)
    content = {"output_dir": str(result.output_dir), "url": result.url, "metrics": result.metrics}
    return tell(content, run_lines(result), as_json=as_json)


def _number(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,3}", text):
        raise InputError(
            f"--num_processes cannot be '{text}': it must be a whole number at least 1", "--num_processes 2"
        )
    return int(text)
