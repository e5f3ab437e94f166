"""``lmtasks demo``: a page to try a model on."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lmtasks.cli.answers import tell
from lmtasks.cli.parser import Parser
from lmtasks.cli.serve import opened
from lmtasks.errors import InputError, RunError, Stopped


def command(words: list[str]) -> int:
    """Show the page until a signal comes."""
    parser = Parser(
        prog="lmtasks demo",
        usage="lmtasks demo RUN_OR_MODEL [flags]",
        description="A page to try a model on, for this machine only unless --share is given.",
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run folder, model folder or Hub id")
    parser.add_argument("--host", metavar="NAME", default="127.0.0.1", help="who may look (default: this machine only)")
    parser.add_argument("--port", metavar="N", type=int, default=7860, help="0 for any that is free (default: 7860)")
    parser.add_argument("--share", action="store_true", help="a public address for a week, through Gradio's servers")
    parser.add_argument("--revision", metavar="NAME", default="main", help="branch, tag or commit on the Hub")
    parser.add_argument("--recipe", metavar="NAME", help="recipe to show it as; found out when not given")
    typed = parser.read_all(words)
    try:
        from lmtasks.serving import page  # noqa: F401
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "gradio":
            raise
        raise InputError(f"a page needs the package {error.name}", "pip install 'lmtasks[demo]'") from error
    return _show(typed)


def _show(typed: dict[str, Any]) -> int:
    from lmtasks.artifacts.run_folder import read_record
    from lmtasks.serving.limits import Limits
    from lmtasks.serving.page import CLOSED, THEME, new_page
    from lmtasks.serving.server import address_of, listener

    # Gradio takes a port, and no socket; whether it can be had is found out before the model is read.
    with listener(typed["host"], typed["port"]) as free:
        port = free.getsockname()[1]
        url = address_of(free, typed["host"])
    served = opened(typed, Limits())
    example = (read_record(typed["model"]) or {}).get("example") if Path(typed["model"]).is_dir() else None
    page = new_page(served, example or "")
    try:
        page.launch(
            server_name=typed["host"],
            server_port=port,
            share=typed.get("share", False),
            prevent_thread_lock=True,
            quiet=True,
            theme=THEME,
            **CLOSED,
        )
        if typed.get("share") and not page.share_url:
            raise RunError("there is no public address: Gradio's servers gave none", "try again, or leave --share out")
        about = {"url": url, "public_url": page.share_url, "model": served.name}
        lines = [f"{served.name} can be tried at {url}"]
        lines += [f"and by anybody at {page.share_url}"] if page.share_url else []
        tell(about, lines, as_json=typed.get("json", False))
        sys.stdout.flush()
        print("Ctrl-C ends it", file=sys.stderr, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt as stop:
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    finally:
        page.close(verbose=False)
        served.close()
    return 0
