"""Device: where the bytes of an array live.

Only the CPU holds arrays so far. `gpu(i)` names a CUDA device, so that code which asks for one gets a clear answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from gluonish.nd.errors import user_line


@dataclass(frozen=True)
class Device:
    """A place for arrays: `kind` is "cpu" or "gpu", `index` counts devices of that kind from 0."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.index})"

    __repr__ = __str__


_CPU = Device("cpu")


def cpu(index: int = 0) -> Device:
    """The processor this program runs on; `index` is accepted for Gluon's sake and must be 0."""
    return checked(Device("cpu", index))


def gpu(index: int = 0) -> Device:
    """The CUDA device with that number. Naming it is free; placing an array on it raises where there is none."""
    return Device("gpu", index)


def checked(device: Device | None) -> Device:
    """`device`, or the CPU for None.

    Raises: TypeError for something else than a Device; ValueError for a device this machine or this version lacks.
    """
    if device is None:
        return _CPU
    if not isinstance(device, Device):
        raise TypeError(f"device must be gl.cpu() or gl.gpu(i), got {device!r} ({user_line()})")
    if device != _CPU:
        raise ValueError(f"device {device} is not available: this version holds arrays on cpu(0) only ({user_line()})")
    return device
