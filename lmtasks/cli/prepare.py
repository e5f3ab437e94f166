"""``lmtasks prepare``: write the data of a run down as shards, to train on from anywhere."""

from __future__ import annotations

from lmtasks.cli.answers import tell
from lmtasks.cli.launching import add_launch_flags, taken_launch
from lmtasks.cli.lookup import asked
from lmtasks.cli.parser import Parser, typed_flags
from lmtasks.errors import InputError
from lmtasks.progress import quiet


def command(words: list[str]) -> int:
    """Prepare, and tell what was written."""
    if (recipe_asked := asked(words, "prepare", "--output_dir URL [--shard_size MB] [flags of lmtasks run]")) is None:
        return 0
    catalog, name = recipe_asked
    recipe = catalog.watched(catalog.recipes[name])
    prog = f"lmtasks prepare {words[0]}"
    about = "The data of a run as shards, for lmtasks run --prepared URL. Flags are those of lmtasks run."
    parser = Parser(prog=prog, usage=f"{prog} --output_dir URL [flags]", description=about)
    parser.add_argument("--output_dir", metavar="URL", help="new folder, or where fsspec writes")
    parser.add_argument("--shard_size", metavar="MB", type=float, help="of tokens in a shard (default: 64)")
    add_launch_flags(parser, catalog)
    values = typed_flags(parser, recipe, words[1:], trains=True, groups=("options", "data", "model"))
    as_json = values.pop("json", False)
    if not (url := values.pop("output_dir", None)):
        raise InputError("prepare needs a place to write to", "--output_dir FOLDER, or a URL")
    if not 0 < values.get("shard_size", 64) <= 1024:
        raise InputError(f"--shard_size cannot be {values['shard_size']:g}", "64 to 256, in MB")
    if launch := taken_launch(values, catalog):
        launch.require_one_process("prepare")
        asked_for = {key: value for key, value in values.items() if key != "shard_size"} | {"output_dir": url}
        return launch.exit_code("prepare", words, recipe, asked_for, restarts=True)
    quiet()
    from lmtasks.runs.data_preparation import prepare

    done = prepare(name, url, **values)
    return tell(done.as_dict(), done.lines(), as_json=as_json)
