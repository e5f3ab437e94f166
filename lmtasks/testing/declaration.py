"""Checks of what a recipe declares: options, starter, tokenizer, and that declaring it costs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lmtasks.api import HEAVY, BlockOptions, Option, convert, options_of
from lmtasks.config.elsewhere import ELSEWHERE
from lmtasks.config.request import ALWAYS, configure, groups_of
from lmtasks.config.training_arguments import REFUSED, training_arguments, training_options
from lmtasks.data.sample import SAMPLES
from lmtasks.errors import InputError, first_line
from lmtasks.models.config import load_config
from lmtasks.models.tokenizer import require_tokens
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, Inapplicable, blamed, check

COMMAND = ("config", "json", "help", "help_all", "plugin", "no_plugins", "traceback")
"""Flags of the command itself."""

NUMBERS = (-1, 0, 1, 2, 1000)
"""Values that every number of an option is tried with."""


@check("recipe")
def import_is_light(case: Case) -> None:
    """Importing the module that declares the recipe imports neither torch nor anything else that takes a second."""
    require_light(case.module or _module(case))


def require_light(module: str) -> None:
    """Import a module on its own, and see what comes with it.

    Raises:
        Fault: something heavy, or it cannot be imported.
    """
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Fault(
            f"'{module}' cannot be imported on its own: {done.stderr.strip().splitlines()[-1]}",
            "mend what its top raises; `lmtasks plugins` shows the same",
        )
    if heavy := done.stdout.split():
        raise Fault(
            f"importing '{module}' imports {', '.join(heavy)}",
            "import them inside the functions that use them, and name classes by string, 'module:Class'",
        )


def require_light_declaration(kind: str, name: str, module: str) -> None:
    """The same of the module that declares an engine, an extension or a launcher.

    Args:
        kind: which of them.
        module: where it is declared; empty: where an installed plugin has one of this name.

    Raises:
        Fault: see :func:`require_light`.
        Inapplicable: nobody says where.
    """
    owners = [plugin for plugin in load_catalog().plugins if name in getattr(plugin, f"{kind}s")]
    module = module or next((plugin.module for plugin in owners if plugin.kind != "file"), "")
    if not module:
        raise Inapplicable(f"no installed plugin has this {kind}; module='...' says where it is declared")
    require_light(module)


def _module(case: Case) -> str:
    """Where an installed plugin declares the recipe."""
    catalog = load_catalog()
    name = catalog.name_of(case.recipe)
    plugin = catalog.owner(name) if name else None
    if plugin is None or plugin.kind == "file":
        raise Inapplicable("no installed plugin has this recipe; module='...' says where it is declared")
    return plugin.module


@check("recipe")
def options_are_documented(case: Case) -> None:
    """Every option says what it does, has a default that it would accept, and a name that nothing else has."""
    taken = _taken(case)
    for name, option in _own_options(case).items():
        require_documented(option)
        if clashes := [spelling for spelling in (name, *option.aliases) if spelling in taken]:
            told = f"--{clashes[0]} is already {taken[clashes[0]]}"
            raise Fault(told, "call the option, or its alias, something else")
        require_own_default(option)


def require_good_options(options: Mapping[str, Option]) -> None:
    """See that each option says what it does, and has a default that it would accept.

    Raises:
        Fault: one does not.
    """
    for option in options.values():
        require_documented(option)
        require_own_default(option)


def require_documented(option: Option) -> None:
    """See that an option says what it does.

    Raises:
        Fault: not in one line without a full stop.
    """
    if not option.help.strip() or "\n" in option.help or option.help.rstrip().endswith("."):
        raise Fault(
            f"--{option.name} has the help {option.help!r}",
            "say in one line, without a full stop, what it does: option(default, help=...)",
        )


def require_own_default(option: Option) -> None:
    """See that an option accepts its default, and leaves it as it is.

    Raises:
        Fault: it does not.
    """
    with blamed("its own default is refused: ", "change the default, or its range", InputError):
        accepted = convert(option, option.default)
    if accepted != option.default:
        raise Fault(f"--{option.name} makes {accepted!r} of its default {option.default!r}", "write it in its own type")


def _own_options(case: Case) -> dict[str, Option]:
    """The options that the recipe adds to those of all recipes with blocks."""
    inherited = options_of(BlockOptions) if issubclass(case.recipe.options, BlockOptions) else {}
    return {name: option for name, option in options_of(case.recipe.options).items() if name not in inherited}


def _taken(case: Case) -> dict[str, str]:
    """Names that a recipe's option cannot have, and what they are."""
    taken = dict.fromkeys(training_options(), "a field of TrainingArguments")
    taken |= dict.fromkeys([*REFUSED, *ELSEWHERE, *ALWAYS], "a name with a meaning of its own")
    taken |= dict.fromkeys(COMMAND, "a flag of the command")
    everybodys = {**groups_of(case.recipe), "options": options_of(BlockOptions)}
    for option in [option for group in everybodys.values() for option in group.values()]:
        taken |= dict.fromkeys((option.name, *option.aliases), "an option of every recipe")
    return taken


@check("recipe", gate=True)
def tokenizer_spec_is_complete(case: Case) -> None:
    """A tokenizer trained for the recipe has every token that it needs, each as one token."""
    spec = case.recipe.tokenizer
    if spec is None:
        raise Inapplicable("the recipe says nothing about training a tokenizer")
    if strangers := [word for word in spec.template.split() if word not in ("$A", *spec.special_tokens.values())]:
        raise Fault(f"the template has {strangers[0]}, no special token", "add it to special_tokens, or correct it")
    if missing := [role for role in case.recipe.required_tokens if role not in spec.special_tokens]:
        raise Fault(
            f"required_tokens has {missing[0]}, the TokenizerSpec has none",
            f"add it: special_tokens={{'{missing[0]}': '<{missing[0].removesuffix('_token')}>', ...}}",
        )
    tokenizer = case.tokenizer()
    require_tokens(tokenizer, "the tiny tokenizer", case.recipe)
    for token in (*spec.special_tokens.values(), *case.recipe.extra_tokens):
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise Fault(f"{token!r} is {len(ids)} tokens", "name it in special_tokens or extra_tokens, spelt the same")


@check(
    "recipe",
    advice="give the option a range, ge=, gt=, lt=, le=; or raise InputError(message, hint) in preprocess"
    " where it depends on other options",
)
def options_hold_or_refuse(case: Case) -> str:
    """Every value that an option accepts, up to its limits, makes batches, or is refused with InputError."""
    case.texts()  # what is wrong whatever the options say is told as it is
    tried = 0
    for name, option in _own_options(case).items():
        for value in _values(option):
            tried += 1
            try:
                for collate, examples in case.having(**{name: value}).splits(2):
                    collate(examples)
            except (InputError, Inapplicable):
                continue
            except Exception as error:
                raise Fault(
                    f"--{name} {value} is accepted, and then fails with {type(error).__name__}: {first_line(error)}"
                ) from error
    return f"{tried} values tried"


def _values(option: Option) -> Iterator[Any]:
    """Values to try: every word, both of yes and no, and numbers around and at the limits."""
    if option.is_switch:
        yield from (True, False)
    yield from option.choices
    if int in option.alternatives:
        yield from {*NUMBERS, *(int(limit) for limit in option.limits.values())}
    elif float in option.alternatives:
        limits = option.limits.values()
        yield from {*map(float, NUMBERS), 0.5, *(limit + step for limit in limits for step in (-1e-6, 0, 1e-6))}
    if type(None) in option.alternatives:
        yield None


@check("recipe")
def starter_is_valid(case: Case) -> None:
    """The run without arguments that the recipe promises can be configured: options, model, sample and texts exist."""
    starter = case.recipe.starter
    if starter is None:
        raise Inapplicable("the recipe has no starter")
    advice = "correct Starter(...); a variant of a recipe with other options needs a starter of its own, or None"
    with blamed("the starter cannot be run: ", advice, InputError):
        request = configure(case.recipe, {})
        load_config(request.model, case.recipe)
        training_arguments(request.training, case.folder / "starter", 1)
    if starter.sample not in SAMPLES:
        raise Fault(f"there is no embedded text '{starter.sample}'", f"take one of {', '.join(SAMPLES)}")
    if wrong := [text for text in starter.texts if not isinstance(text, str) or not text.strip()]:
        raise Fault(f"the starter's texts have {wrong[0]!r}", advice)
    if starter.epochs is not None and starter.epochs <= 0:
        raise Fault(f"the starter's epochs are {starter.epochs!r}", "give a number above 0, or None for no limit")
