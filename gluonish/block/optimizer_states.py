"""The Trainer's states to and from a file: arrays named `<parameter>/<state>`, counts in the metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.block.parameter_files import names
from gluonish.nd import files
from gluonish.nd.errors import shape_text, user_line

if TYPE_CHECKING:
    from gluonish.block.trainer import Trainer


def save(trainer: Trainer, path: Any) -> None:
    """See `Trainer.save_states`."""
    wanted = trainer.optimizer.states
    updated = [i for i, count in enumerate(trainer.counts) if count]
    arrays = {f"{trainer.names[i]}/{s}": a for i in updated for s, a in zip(wanted, trainer.states_of(i))}
    facts = {
        "optimizer": type(trainer.optimizer).__name__,
        "num_update": trainer.optimizer.num_update,
        "counts": {trainer.names[i]: trainer.counts[i] for i in updated},
    }
    files.save(path, arrays, {"trainer": json.dumps(facts)})


def load(trainer: Trainer, path: Any) -> None:
    """See `Trainer.load_states`."""
    arrays, metadata = files.load_with_metadata(path)
    try:
        facts = json.loads(metadata["trainer"])
        counts = {str(name): int(count) for name, count in facts["counts"].items()}
        num_update, kind = int(facts["num_update"]), facts["optimizer"]
    except (KeyError, ValueError, TypeError, AttributeError):
        raise files.FileError(
            f"{path} holds no Trainer states; was it written by save_states? ({user_line()})"
        ) from None
    own = type(trainer.optimizer).__name__
    if kind != own:
        raise ValueError(f"{path} is of the optimizer {kind}, this Trainer has {own} ({user_line()})")
    unknown = [name for name in counts if name not in trainer.names]
    if unknown:
        raise ValueError(f"{path} has states of {names(unknown)}, which this Trainer does not train ({user_line()})")
    found = {i: _checked(trainer, i, arrays, path) for i, name in enumerate(trainer.names) if name in counts}
    for i, name in enumerate(trainer.names):
        trainer.counts[i] = counts.get(name, 0)
        zeros = [0] * len(trainer.optimizer.states)
        for own_state, values in zip(
            trainer.states_of(i) if i in found or trainer.parameters[i].initialized else (), found.get(i, zeros)
        ):
            own_state[:] = values
    trainer.optimizer.num_update = num_update


def _checked(trainer: Trainer, place: int, arrays: Any, path: Any) -> list[np.ndarray]:
    p = trainer.parameters[place]
    if not p.initialized:
        raise ValueError(
            f"{path}: {trainer.names[place]!r} has no values yet; initialize or load the net first ({user_line()})"
        )
    out = []
    for each in trainer.optimizer.states:
        name = f"{trainer.names[place]}/{each}"
        if name not in arrays:
            raise ValueError(f"{path} lacks {name!r} ({user_line()})")
        if arrays[name].shape != p.shape:
            raise ValueError(
                f"{path}: {name!r} has shape {shape_text(arrays[name].shape)}, the parameter {shape_text(p.shape)} "
                f"({user_line()})"
            )
        out.append(arrays[name].asnumpy())
    return out
