"""``lmtasks --help``: the commands that there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from lmtasks.config.commands import COMMANDS
from lmtasks.progress import fitted

USAGE = """\
usage: lmtasks COMMAND ...

From text to a language model of your own, and on to the Hub.

{rows}

RECIPE is a name from the list, PACKAGE:NAME where two packages have it, or
./my_recipe.py.

  lmtasks COMMAND --plugin MODULE         count a module as a plugin, too
  lmtasks COMMAND --no_plugins            the built-in recipes only
  lmtasks COMMAND --traceback             where an error comes from
  lmtasks COMMAND --help                  the flags of a command
  lmtasks --version

start with:  lmtasks run masked-lm
"""


def tell_usage() -> None:
    """Print the commands."""
    for line in fitted(USAGE.format(rows="\n".join(_rows())).splitlines(), sys.stdout):
        print(line)


def _rows() -> Iterator[str]:
    """A line for each command, those of extensions last."""
    from lmtasks.cli.catalog_cache import told

    brought = [command for plugin in told().plugins for command in plugin.get("commands", ())]
    own = {command["name"]: (command["takes"], command["summary"]) for command in brought}
    for name, (takes, does) in {**COMMANDS, **own}.items():
        yield f"  lmtasks {f'{name} {takes}':<30}{does}"
