"""``lmtasks run``: train a model as a recipe says."""

from __future__ import annotations

from lmtasks.cli.answers import run_lines, tell, tell_rows
from lmtasks.cli.launching import add_launch_flags, taken_launch
from lmtasks.cli.lookup import asked
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.config.world import World
from lmtasks.progress import quiet
from lmtasks.registry.enabled_plugins import current, file_of, remember


def command(words: list[str]) -> int:
    """Train, and report what came of it."""
    if (recipe_asked := asked(words, "run", "[flags]")) is None:
        return 0
    catalog, name = recipe_asked
    recipe = catalog.watched(catalog.recipes[name])
    prog = f"lmtasks run {words[0]}"
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=recipe.summary)
    add_launch_flags(parser, catalog)
    values = typed_flags(parser, recipe, words[1:], trains=True)
    as_json = values.pop("json", False)
    if launch := taken_launch(values, catalog):
        return launch.exit_code("run", words, recipe, values, restarts=True)
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
