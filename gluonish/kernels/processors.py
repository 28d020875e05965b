"""How many processors this process may use: its affinity, and the limits of its control groups (Linux).

A limit may stand at the process's own group or at any group around it, so the smallest of them all counts. Both
versions of control groups are read, wherever they are mounted, inside containers too: there the group's path may not
exist under the mount, and the mount itself is the group.
Source: the kernel's documents on cgroup v1 (scheduler/sched-bwc) and v2 (cpu.max), and proc(5) on mountinfo.

Deliberately not here: sets of processors by number (cpuset), which the affinity already obeys.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_processors() -> int:
    """Processors that this process may keep busy, at least 1; part of one counts as a whole."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, quota())))


def quota(root: Path = Path("/")) -> float:
    """Processors that the control groups of this process allow, infinity without a limit. root: for tests."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        own = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    limits = [math.inf]
    for line in mounts:
        fields, _, details = line.partition(" - ")
        kind, _, options = details.split(" ")[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            inside, mount = fields.split(" ")[3:5]
            limits += _limits_along(root / mount.lstrip("/"), inside, _path_of(own, kind))
    return min(limits)


def _path_of(own: list[str], kind: str) -> str:
    """The path of the process's group: of the line "number:controllers:path"; version 2 has the number 0."""
    for line in own:
        number, controllers, path = line.split(":", 2)
        if (number == "0") if kind == "cgroup2" else ("cpu" in controllers.split(",")):
            return path
    return "/"


def _limits_along(mount: Path, inside: str, path: str) -> Iterator[float]:
    """The limits of a group and of all groups around it. inside: the group that is mounted there."""
    shown = path[len(inside) :] if path.startswith(inside) else path
    group = mount / shown.strip("/")
    if ".." in group.parts or not group.is_dir():  # not to be seen from here: what is mounted is all there is
        group = mount
    while True:
        limit = _limit(group)
        if limit is not None:
            yield limit
        if group == mount:
            return
        group = group.parent


def _limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None
