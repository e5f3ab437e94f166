"""``lmtasks serve``: answer over HTTP."""

from __future__ import annotations

import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from lmtasks.cli.answers import tell
from lmtasks.cli.lookup import fitting
from lmtasks.cli.parser import Parser
from lmtasks.errors import InputError, Stopped
from lmtasks.progress import quiet

MISSING = "pip install 'lmtasks[serve]'"


def command(words: list[str]) -> int:
    """Serve until a signal comes."""
    parser = Parser(
        prog="lmtasks serve",
        usage="lmtasks serve RUN_OR_MODEL [flags]",
        description="Answer over HTTP: huggingface_hub.InferenceClient and OpenAI's clients speak with it.",
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, model folder or Hub id")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1", help="who may ask (default: this machine only)")
    parser.add_argument("--port", metavar="N", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--name", metavar="NAME", help="as clients call the model (default: its own)")
    parser.add_argument("--batch_size", metavar="N", type=int, help="texts at once (default: 16)")
    parser.add_argument("--queue", metavar="N", type=int, help="texts that may wait (default: 256)")
    parser.add_argument("--texts", metavar="N", type=int, help="texts of one request (default: 64)")
    parser.add_argument("--new_tokens", metavar="N", type=int, help="most of one continuation (default: 1024)")
    parser.add_argument("--guesses", metavar="N", type=int, help="most for one mask (default: 1000)")
    parser.add_argument("--body", metavar="N", type=int, help="most bytes of a request (default: 1048576)")
    parser.add_argument("--timeout", metavar="X", type=float, help="most seconds of a request (default: 60)")
    parser.add_argument("--revision", metavar="NAME", default="main", help="branch, tag or commit on the Hub")
    parser.add_argument("--recipe", metavar="NAME", help="recipe to serve as; found out when not given")
    typed = parser.read_all(words)
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serving needs the package {error.name}", MISSING) from error
    return _serve(typed)


def _serve(typed: dict[str, Any]) -> int:
    from lmtasks.serving.limits import Limits
    from lmtasks.serving.server import address_of, listener, server

    limits = Limits(**{field.name: typed[field.name] for field in fields(Limits) if field.name in typed})
    host = typed["host"]
    listening = listener(host, typed["port"])
    served = opened(typed, limits)
    about = {"url": address_of(listening, host), "model": served.name, "recipe": served.predictor.recipe.name}

    def ready() -> None:
        tell(about, [f"{served.name} ({about['recipe']}) is at {about['url']}"], as_json=typed.get("json", False))
        sys.stdout.flush()
        print("Ctrl-C ends it", file=sys.stderr, flush=True)

    with listening:
        try:
            server(served, listening, host, ready).run(sockets=[listening])
        except KeyboardInterrupt as stop:
            print(f"ended; {served.worker.answered} texts were answered", file=sys.stderr)
            return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


def opened(typed: dict[str, Any], limits: Any) -> Any:
    """The model that was typed, ready to be asked; the libraries are quiet."""
    quiet("transformers")
    from lmtasks.inference.fitting_recipe import installed_recipe
    from lmtasks.inference.predictor import Predictor
    from lmtasks.serving.served import Served

    name, revision = typed["model"], typed["revision"]
    if revision != "main" and Path(name).is_dir():
        raise InputError(f"--revision {revision}: the folder '{name}' has no revisions", "leave --revision out")
    catalog, recipe = fitting(name, typed.get("recipe"), revision)
    predictor = Predictor(name, installed_recipe(name, catalog.name_of(recipe), revision), revision)
    called = typed.get("name") or (Path(name).resolve().name if Path(name).is_dir() else name)
    return Served(predictor, called, limits)
