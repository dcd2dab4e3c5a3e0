"""Where a run's methods looked at its end, on pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lsfd.config.load import load_options
from lsfd.distillers import DISTILLERS, Distiller
from lsfd.errors import LsfdError
from lsfd.training.checkpoint import checkpoints, newest_readable
from lsfd.training.distributed import Processes
from lsfd.training.finished import FinishedRun
from lsfd.training.maps import maps_of
from lsfd.training.model import LSFDModel
from lsfd.training.phases import phase_at
from lsfd.training.report_pictures import Excerpt


def add_attention(
    run: FinishedRun, excerpts: Sequence[Excerpt], device: torch.device, notes: list[str]
) -> None:
    """Add the maps of a run's methods to some excerpts; those of its last checkpoint.

    A method's map comes from parameters that only a checkpoint holds (LSFD's regressors), from
    student and teacher. Where one of them is missing there is none.

    Args:
        run: with methods that have maps, or without.
        excerpts: get them, by label.
        device: where the networks run.
        notes: gets a sentence where maps are missing.
    """
    methods = [section.type for section in run.loaded.options.distillers]
    if not excerpts or not any(_has_maps(method) for method in methods):
        return
    if not checkpoints(run.folder.states):
        notes.append(f"{run.name} has no checkpoint any more, so its attention is not shown.")
        return
    try:
        model, iteration = _restored(run, device)
    except LsfdError as error:
        notes.append(f"The attention of {run.name} is not shown ({error}).")
        return
    if phase_at(model.phases, iteration).stage is not None:
        notes.append(f"{run.name} stopped in a method's stage, so its attention is not shown.")
        return
    for excerpt in excerpts:
        for (method, name), values in maps_of(model, excerpt.lq, excerpt.hr, iteration).items():
            by = f"{method}, " if len(methods) > 1 else ""
            excerpt.attention[f"{run.name}: {by}{name}"] = values[0, 0].float().cpu().numpy()


def _has_maps(method: str) -> bool:
    return method in DISTILLERS and DISTILLERS[method].maps is not Distiller.maps


def _restored(run: FinishedRun, device: torch.device) -> tuple[LSFDModel, int]:
    """Return a run as it was at its last checkpoint, and that iteration.

    Of the checkpoint only what maps are made of is read, so that it may be one of an earlier
    version that lacks something else.
    """
    # Nothing is trained here, so nothing of a training's surroundings is set up or written.
    changes = ["path.teacher_cache=null", "train.compile=false"]
    if device.type == "cpu":
        changes.append("num_gpu=0")
    state, source = newest_readable(run.folder.states)
    model = LSFDModel(load_options(run.folder.options, changes), Processes())
    try:
        model.net_g.load_state_dict(state["model"]["student"])
        model.step.distillers.load_state_dict(state["model"]["distillers"])
        return model, int(state["iteration"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LsfdError(f"{source} does not fit the options beside it") from error
