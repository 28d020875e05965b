"""Trainer: applies an optimizer to a set of Parameters.

All Parameters are updated by one function of their gradients and a few numbers, compiled once. It captures weights and
states and writes them in place. Learning rate, momentum and all such numbers come in as an array, so a new value
compiles nothing; a momentum where there was none, another lr_mult or grad_req makes a new function.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from gluonish.block import attributes, optimizer_states
from gluonish.block.optimizer import Optimizer, create
from gluonish.block.parameter import Parameter
from gluonish.block.parameter_files import names
from gluonish.nd import NDArray, autograd
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_half
from gluonish.nd.errors import user_line


class Plan:
    """One compiled update: of which Parameters, and the arrays it works on."""

    def __init__(self, trainer: Trainer, places: tuple[int, ...]) -> None:
        self.places = places
        self.parameters = [trainer.parameters[i] for i in places]
        self.gradients: list[Any] = [p._grad for p in self.parameters]
        self.states = [trainer.states_of(i) for i in places]
        self.optimizer = trainer.optimizer
        dtype = self.parameters[0].dtype
        self.names = ("lr", "rescale", "correction", *self.optimizer.numbers())
        self.numbers = np.zeros(len(self.names), np.float64 if dtype == np.float64 else np.float32)
        self.array = NDArray(self.numbers)
        self.look_again()
        from gluonish.hybrid import compile_function  # here, for it loads what eager programs do without

        self.run: Any = compile_function(self.update, name="Trainer.step")

    def fresh(self) -> bool:
        """Whether every gradient was refreshed since the last step."""
        for gradient in self.gradients:  # a plain loop: a third of what all() with a generator costs
            if not gradient.fresh:
                return False
        return True

    def look_again(self) -> None:
        """Fills in the optimizer's own numbers, which stay from step to step."""
        self.numbers[3:] = list(self.optimizer.numbers().values())

    def update(self, *arrays: NDArray) -> None:
        """Writes new weights and states. The arrays are the gradients, then the numbers."""
        *grads, numbers = arrays
        named = {"wd": None, "clip_gradient": None, **{name: numbers[i] for i, name in enumerate(self.names)}}
        clip = named["clip_gradient"]
        for p, grad, states in zip(self.parameters, grads, self.states):
            grad = grad * named["rescale"]
            if clip is not None:
                grad = grad.clip(-clip, clip)
            new, new_states = self.optimizer.update(p, grad, states, _numbers_of(p, named))
            p[:] = new
            for old, value in zip(states, new_states):
                old[:] = value


def _numbers_of(p: Parameter, named: dict[str, Any]) -> SimpleNamespace:
    """The numbers as a Parameter sees them, with its factors."""
    now = SimpleNamespace(**named)
    if p.lr_mult != 1:
        now.lr = now.lr * p.lr_mult
    if p.wd_mult == 0:
        now.wd = None
    elif now.wd is not None and p.wd_mult != 1:
        now.wd = now.wd * p.wd_mult
    return now


class Trainer:
    """Updates Parameters from their gradients: `trainer.step(batch_size)` after each `backward`.

    params: what `collect_params()` gives, or a list of Parameters; those with grad_req "null" are left alone.
    optimizer: a name with optimizer_params, or an Optimizer.

    >>> import gluonish as gl
    >>> from gluonish import nd, nn, autograd
    >>> net = nn.Dense(1, use_bias=False, in_units=2, weight_initializer="ones"); net.initialize()
    >>> trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    >>> with autograd.record():
    ...     loss = net(nd.array([[1.0, 2.0]]))
    >>> loss.backward(); trainer.step(1); net.weight.tolist()
    [[0.5, 0.0]]

    Raises: TypeError for something else than Parameters; ValueError or TypeError for an unknown optimizer or
    hyperparameter.
    """

    def __init__(
        self,
        params: Mapping[str, Parameter] | Iterable[Parameter],
        optimizer: str | Optimizer,
        optimizer_params: Mapping[str, Any] | None = None,
        kvstore: str | None = None,
    ) -> None:
        if kvstore not in (None, "local", "device"):
            raise ValueError(f"kvstore must be None, 'local' or 'device', got {kvstore!r} ({user_line()})")
        self.names, self.parameters = _named(params)
        self.optimizer = create(optimizer, **(optimizer_params or {}))
        self.counts = [0] * len(self.parameters)  # how often each Parameter was updated
        self._states: dict[int, tuple[NDArray, ...]] = {}
        self._plans: dict[tuple[int, ...], Plan] = {}
        self.settings: Any = None
        self._changes = -1
        self.active: list[int] = []  # places of the Parameters that are not frozen
        self._whole: Plan | None = None

    # --- learning rate ---------------------------------------------------------------------------------------------
    @property
    def learning_rate(self) -> float:
        """The present learning rate."""
        return self.optimizer.learning_rate

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate. Raises: ValueError while a scheduler decides it."""
        self.optimizer.learning_rate = rate

    # --- updating --------------------------------------------------------------------------------------------------
    def step(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Divides the gradients by batch_size and updates every Parameter once.

        A Parameter whose gradient no backward has refreshed since the last step is left as it is, with a UserWarning
        that names it unless ignore_stale_grad.
        Inside a function that `gl.hybridize` compiles, backward included, the update is part of the program.
        Raises: ValueError for a batch_size that is not positive; TypeError if such a function has no backward.
        """
        if not batch_size > 0:
            raise ValueError(f"step: batch_size must be positive, got {batch_size!r} ({user_line()})")
        if state.trace is not None:
            from gluonish.block.trainer_trace import trace_step  # it needs this module

            with autograd.pause(state.training):
                stale = trace_step(self, state.trace, batch_size)
            if stale and not ignore_stale_grad:
                _warn([self.names[i] for i in stale])
        elif state.recording:
            with autograd.pause(state.training):
                self._update(self.optimizer.rescale_grad / batch_size, ignore_stale_grad)
        else:
            self._update(self.optimizer.rescale_grad / batch_size, ignore_stale_grad)

    update = step

    def _update(self, rescale: float, ignore_stale_grad: bool) -> None:
        self.look_again()
        if self._whole is not None and self._whole.fresh():
            self._run(self._whole, rescale)
            return
        groups: dict[Any, list[int]] = {}  # Parameters that one program can update
        stale = []
        for i in self.active:
            gradient = self.parameters[i]._grad
            if gradient is None or not gradient.fresh:
                stale.append(i)
            else:
                groups.setdefault((self.counts[i], self.parameters[i].dtype), []).append(i)
        if stale and not ignore_stale_grad:
            _warn([self.names[i] for i in stale])
        latest = max((count for count, _ in groups), default=-1) + 1
        self.optimizer.num_update = max(self.optimizer.num_update, latest)  # one learning rate for all groups
        for places in groups.values():
            self._run(self.plan(tuple(places)), rescale)
        self._whole = self._together()

    def _run(self, plan: Plan, rescale: float) -> None:
        self.prepare(plan, rescale)
        plan.run(*[g.value for g in plan.gradients], plan.array)
        self.finish(plan)

    def prepare(self, plan: Plan, rescale: float) -> None:
        """Fills in the numbers that belong to the next update alone."""
        optimizer, numbers = self.optimizer, plan.numbers
        count = self.counts[plan.places[0]] + 1
        if count > optimizer.num_update:
            optimizer.num_update = count
        numbers[0], numbers[1], numbers[2] = optimizer.learning_rate, rescale, optimizer.correction(count)
        plan.array._version[0] += 1

    def finish(self, plan: Plan) -> None:
        """Counts an update that was done."""
        counts = self.counts
        count = counts[plan.places[0]] + 1
        for g in plan.gradients:
            g.fresh = False
        for i in plan.places:
            counts[i] = count

    def look_again(self) -> None:
        """If some attribute was assigned somewhere: are the compiled updates still right?"""
        if self._changes == attributes.changes():
            return
        self._changes = attributes.changes()
        self.active = [i for i, p in enumerate(self.parameters) if p.grad_req != "null"]
        factors = [(p.lr_mult, p.wd_mult, p.dtype, id(p._grad)) for p in self.parameters]
        settings = (self.optimizer.settings(), factors)
        if settings != self.settings:
            self.settings = settings
            self._plans.clear()
        for plan in self._plans.values():
            plan.look_again()
        self._whole = self._together()

    def _together(self) -> Plan | None:
        """The plan that updates every trained Parameter, if one program can do that now."""
        kinds = {(self.counts[i], self.parameters[i].dtype) for i in self.active}
        if len(kinds) != 1 or not all(self.parameters[i].initialized for i in self.active):
            return None
        return self.plan(tuple(self.active))

    def plan(self, places: tuple[int, ...]) -> Plan:
        """The update of these Parameters."""
        if places not in self._plans:
            self._plans[places] = Plan(self, places)
        return self._plans[places]

    def states_of(self, place: int) -> tuple[NDArray, ...]:
        """The optimizer's arrays for a Parameter, zeros at first. Half-width weights have float32 states."""
        wanted = self.optimizer.states
        found = self._states.get(place)
        if found is None or len(found) != len(wanted):
            p = self.parameters[place]
            dtype = np.dtype("float32") if is_half(p.dtype) else p.dtype
            found = self._states[place] = tuple(NDArray(np.zeros(p.shape, dtype)) for _ in wanted)
        return found

    # --- files -----------------------------------------------------------------------------------------------------
    def save_states(self, path: Any) -> None:
        """Writes the optimizer's states and counts to a safetensors file; if that fails, an old file stays.

        Raises: OSError if the file cannot be written.
        """
        optimizer_states.save(self, path)

    def load_states(self, path: Any) -> None:
        """Reads what `save_states` wrote. Either everything is set, or nothing.

        Raises: FileNotFoundError; FileError for a damaged file; ValueError if it is from another optimizer or model.
        """
        optimizer_states.load(self, path)
        self._changes = -1  # other counts may need other programs


def _warn(stale: list[str]) -> None:
    warnings.warn(
        f"no backward has given {names(stale)} a new gradient since the last step, so the values stay as they are; if "
        f"only a part of the model was used on purpose, say step(batch_size, ignore_stale_grad=True) ({user_line()})",
        UserWarning,
        stacklevel=4,
    )


def _named(params: Any) -> tuple[list[str], list[Parameter]]:
    """Each Parameter once, with a name of its own."""
    if not isinstance(params, (Mapping, list, tuple)) and not hasattr(params, "__iter__"):
        raise TypeError(f"Trainer takes net.collect_params() or Parameters, got {params!r:.60} ({user_line()})")
    pairs = list(params.items()) if isinstance(params, Mapping) else [(getattr(p, "name", ""), p) for p in params]
    found: dict[int, tuple[str, Parameter]] = {}
    taken: set[str] = set()
    for name, p in pairs:
        if not isinstance(p, Parameter):
            raise TypeError(f"Trainer takes Parameters, got {type(p).__name__} {name!r} ({user_line()})")
        if id(p) not in found:
            while name in taken:
                name += "'"
            taken.add(name)
            found[id(p)] = (name, p)
    if not found:
        raise ValueError(f"Trainer got no Parameters ({user_line()})")
    return [name for name, _ in found.values()], [p for _, p in found.values()]
