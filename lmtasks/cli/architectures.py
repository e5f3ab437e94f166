"""``lmtasks architectures``: the model types that a recipe trains, and what is known of each."""

from __future__ import annotations

from lmtasks.api import Recipe
from lmtasks.cli.answers import tell, tell_rows
from lmtasks.cli.argv import refuse_stray, taken_switch, told_of
from lmtasks.cli.lookup import found
from lmtasks.errors import RunError
from lmtasks.progress import quiet
from lmtasks.registry.catalog import Catalog
from lmtasks.registry.support import heading, rows


def command(words: list[str]) -> int:
    """Print what is known, or measure it anew."""
    prove, words = taken_switch(words, "prove")
    given, said = told_of(words, "lmtasks architectures [RECIPE] [--prove TYPE...]", names=None)
    word, kinds = (given or ["masked-lm"])[0], given[1:]
    if not prove:
        refuse_stray(kinds, f"lmtasks architectures {word} --prove {' '.join(kinds[:1])}")
    catalog, name = found(word, light=not prove)
    recipe = catalog.recipes[name]
    if prove:
        return _proved(recipe, catalog, kinds, as_json="json" in said)
    known = rows(recipe, catalog)
    lines = [f"{name}, {recipe.model_class.partition(':')[2]}, {heading()}", *(row.line() for row in known)]
    return tell_rows([row.as_json() for row in known], lines, as_json="json" in said)


def _proved(recipe: Recipe, catalog: Catalog, kinds: list[str], *, as_json: bool) -> int:
    """Measure what else is only looked up; the exit code says whether all of it runs."""
    quiet()
    from lmtasks.testing.survey import survey

    seen = []
    for row, proof in survey(recipe, catalog, kinds):
        checks = {name: str(outcome) for name, outcome in proof.checks.items()} if proof else {}
        seen.append({**row.as_json(), "checks": checks})
        if not as_json:
            print(row.line(), flush=True)
    tell(seen, [], as_json=as_json)
    return 0 if all(row["state"] != "refused" for row in seen) else RunError.exit_code
