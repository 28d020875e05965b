"""Limits of control groups, on made-up file systems: both versions, nested groups, containers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from gluonish.kernels.processors import quota, usable_processors

V1 = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V2 = "35 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
OTHERS = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup c rw,memory"


def system(root: Path, mounts: list[str], own: list[str], limits: dict[str, str]) -> Path:
    files = {"proc/self/mountinfo": "\n".join([*mounts, OTHERS]), "proc/self/cgroup": "\n".join(own)}
    for group, limit in limits.items():
        if "/cpu" in group:
            left, _, period = limit.partition(" ")
            files |= {f"{group}/cpu.cfs_quota_us": left + "\n", f"{group}/cpu.cfs_period_us": period + "\n"}
        else:
            files[f"{group}/cpu.max"] = limit + "\n"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_no_limit(tmp_path: Path) -> None:
    assert quota(tmp_path) == math.inf  # no Linux at all
    root = system(tmp_path, [V2], ["0::/a"], {"sys/fs/cgroup/a": "max 100000"})
    assert quota(root) == math.inf


def test_the_smallest_of_nested_groups_counts(tmp_path: Path) -> None:
    base = "sys/fs/cgroup"
    limits = {f"{base}/slice": "150000 100000", f"{base}/slice/unit": "max 100000", f"{base}/slice/unit/a": "6000 2000"}
    root = system(tmp_path, [V2], ["0::/slice/unit/a"], {**limits, f"{base}/slice/neighbour": "100 100000"})
    assert quota(root) == 1.5


def test_version_1(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/cpu,cpuacct"
    own = ["9:memory:/x", "4:cpu,cpuacct:/docker/abc", "0::/"]
    limits = {base: "-1 100000", f"{base}/docker": "350000 100000", f"{base}/docker/abc": "-1 100000"}
    assert quota(system(tmp_path, [V1], own, limits)) == 3.5


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    own = ["4:cpu,cpuacct:/docker/abc"]
    assert quota(system(tmp_path, [V1], own, {"sys/fs/cgroup/cpu,cpuacct": "200000 100000"})) == 2
    mounted = V1.replace(" / /sys", " /docker/abc /sys")
    assert quota(system(tmp_path, [mounted], own, {"sys/fs/cgroup/cpu,cpuacct": "100000 100000"})) == 1


def test_a_part_of_a_mounted_group(tmp_path: Path) -> None:
    mounted = V1.replace(" / /sys", " /docker/abc /sys")
    own = ["4:cpu,cpuacct:/docker/abc/inner"]
    limits = {"sys/fs/cgroup/cpu,cpuacct": "-1 100000", "sys/fs/cgroup/cpu,cpuacct/inner": "250000 100000"}
    assert quota(system(tmp_path, [mounted], own, limits)) == 2.5


def test_a_group_that_cannot_be_seen(tmp_path: Path) -> None:
    root = system(tmp_path, [V2], ["0::/../elsewhere"], {"sys/fs/cgroup": "400000 100000"})
    assert quota(root) == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_affinity_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_processors() == 1
    finally:
        os.sched_setaffinity(0, before)
    monkeypatch.setattr("gluonish.kernels.processors.quota", lambda: 0.2)
    assert usable_processors() == 1
    monkeypatch.setattr("gluonish.kernels.processors.quota", lambda: 1.5)
    assert usable_processors() == min(2, len(before))
