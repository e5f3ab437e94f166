"""What users bring along, named on the command line as ``module:factory``: an optimiser, callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lmtasks import InputError
from lmtasks.api import resolve


def factory_named(flag: str, reference: str) -> Callable[..., Any]:
    """The function, or the class, of that name.

    Raises:
        InputError: there is none, or its module cannot be imported.
    """
    if not re.fullmatch(r"[\w.]+:\w+", reference):
        raise InputError(f"{flag} {reference} names no function", "module:factory, which can be imported")
    try:
        return resolve(reference)
    except Exception as error:  # the module is the user's, and may fail in any way
        raise InputError(f"{flag} {reference}: {_said(error)}", "module:factory, which can be imported") from error


def made_by(flag: str, reference: str, factory: Callable[..., Any], kind: type, settings: Mapping[str, Any]) -> Any:
    """What a factory makes of these settings.

    Raises:
        InputError: it fails, or makes something of another kind.
    """
    name = f"a keras.{kind.__module__.split('.')[2]}.{kind.__name__}"
    try:
        made = factory(**settings)
    except Exception as error:  # the same
        given = f"of {', '.join(settings)}" if settings else "without arguments"
        raise InputError(f"{flag} {reference}: {_said(error)}", f"let it make {name} {given}") from error
    if not isinstance(made, kind):
        raise InputError(f"{flag} {reference} makes no Keras {kind.__name__.lower()}", f"let it return {name}")
    return made


def _said(error: Exception) -> str:
    """What an error says in one line; of what kind it is, where that is not the absence of something."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, ImportError) else f"{type(error).__name__}: {line}"
