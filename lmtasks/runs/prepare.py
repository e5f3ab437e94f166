"""Preparation: everything that a run needs, loaded and checked before anything is written."""

from __future__ import annotations

from dataclasses import replace

from lmtasks.artifacts.publish import check_can_push, require_shared_base
from lmtasks.artifacts.run_folder import require_space
from lmtasks.config.request import Request
from lmtasks.registry.catalog import engine_of
from lmtasks.runs.arguments import fitted
from lmtasks.runs.going_on import notes_on, require_same_data, require_same_frozen, require_steps_left
from lmtasks.runs.load import load
from lmtasks.runs.place import Place, place_of
from lmtasks.runs.plan import plan_of
from lmtasks.runs.prepared import Prepared
from lmtasks.training.extensions import arguments_for, callbacks_of, trackers_of
from lmtasks.training.rehearsal import elsewhere


def prepare(request: Request, place: Place | None = None) -> Prepared:
    """Load and check everything that the run needs, in a place that was found for it.

    Raises:
        InputError: something does not fit; nothing was written.
    """
    engine = engine_of(request)
    place = place or place_of(request)
    folder, start = place.folder, place.start
    if request.output.push_to_hub:
        check_can_push(request.output.hub_model_id or folder.name)
    request = replace(request, training={**request.training, **place.batch.as_training()})
    loaded = load(request, training=True, check_data=lambda data: require_same_data(data, place))
    loaded = fitted(loaded, place.batch.size)
    model, request = loaded.model, loaded.data.request
    # A checkpoint has the weights and the two moments of Adam, the run once more the weights.
    require_space(folder, 4 * sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad))
    plan = plan_of(request, folder, loaded)
    require_steps_left(start, plan)
    if plan.adapter and request.output.push_to_hub:
        require_shared_base(plan.base_model)
    arguments = arguments_for(request, folder, plan.steps)
    plan = replace(plan, notes=(*plan.notes, *notes_on(request, start, plan, arguments)))
    callbacks = (*callbacks_of(request), *trackers_of(request, arguments))
    prepared = Prepared(loaded.data, place, model, plan, arguments, engine, callbacks)
    require_same_frozen(lambda: prepared.frozen, place)
    with elsewhere(prepared.training) as rehearsed:
        engine.check(rehearsed, request.engine_options)
    return prepared
