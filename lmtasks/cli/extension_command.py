"""A subcommand that an extension brings."""

from __future__ import annotations

from lmtasks.cli.lookup import installed
from lmtasks.config.commands import COMMANDS, PEERS
from lmtasks.errors import InputError, nearest


def command(name: str, words: list[str]) -> int:
    """Carry out the command of that name.

    Raises:
        InputError: no extension that can be used brings it; names the nearest, and what could not be loaded.
        PluginError: it failed.
    """
    catalog = installed(light=True)
    if name not in catalog.commands and any(plugin.slow for plugin in catalog.plugins):
        catalog = installed()  # what imports torch at its top may have it
    known = catalog.commands
    if name not in known and name in PEERS:
        raise InputError(f"unknown command '{name}'", f"here it is lmtasks {PEERS[name]}")
    if name not in known:
        raise InputError(f"unknown command '{name}'{nearest(name, [*COMMANDS, *known])}", "lmtasks --help")
    return known[name].run(words)
