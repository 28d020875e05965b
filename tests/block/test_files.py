"""Saving and loading parameters: round trips, and that no failure loses anything."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.block import NotInitialized, nn
from gluonish.nd import FileError


def net_of(units: int = 4, seed: int = 0) -> nn.HybridSequential:
    nd.random.seed(seed)
    net = nn.HybridSequential(nn.Dense(units, in_units=3), nn.BatchNorm(in_channels=units), nn.Dense(2))
    net.initialize("normal")
    net(nd.ones((1, 3)))
    return net


def values(net: Any) -> dict[str, np.ndarray]:
    return {name: p.asnumpy() for name, p in net.collect_params().items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_round_trip_into_a_net_without_shapes(tmp_path: Path) -> None:
    net = net_of()
    net.save_parameters(tmp_path / "m.safetensors")
    fresh = nn.HybridSequential(nn.Dense(4), nn.BatchNorm(), nn.Dense(2))
    fresh.load_parameters(tmp_path / "m.safetensors")
    assert same(values(net), values(fresh))
    x = nd.ones((2, 3))
    assert (fresh(x) == net(x)).all() and fresh[0].weight.grad is not None


def test_loading_keeps_the_arrays_that_others_hold(tmp_path: Path) -> None:
    net, other = net_of(seed=1), net_of(seed=2)
    net.save_parameters(tmp_path / "m")
    weight, memory = other[0].weight, other[0].weight._data
    other.load_parameters(str(tmp_path / "m"))
    assert other[0].weight is weight and weight._data is memory and same(values(net), values(other))


def test_saving_needs_values(tmp_path: Path) -> None:
    with pytest.raises(NotInitialized, match="no values yet for 'weight', 'bias'"):
        nn.Dense(3).save_parameters(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_missing_and_extra_names(tmp_path: Path) -> None:
    net_of().save_parameters(tmp_path / "m")
    wider = nn.HybridSequential(nn.Dense(4, in_units=3), nn.Flatten(), nn.Dense(2), nn.Dense(2))
    wider.initialize()
    wider(nd.ones((1, 3)))
    before = values(wider)
    with pytest.raises(ValueError, match="lacks '3.weight', '3.bias'; it has '0.weight'.*allow_missing"):
        wider.load_parameters(tmp_path / "m")
    with pytest.raises(
        ValueError, match="has '1.gamma', '1.beta', '1.running_mean', '1.running_var', which the net lacks"
    ):
        wider.load_parameters(tmp_path / "m", allow_missing=True)
    assert same(before, values(wider))
    wider.load_parameters(tmp_path / "m", allow_missing=True, ignore_extra=True)
    assert (wider[3].weight.asnumpy() == before["3.weight"]).all()
    assert (wider[0].weight.asnumpy() != before["0.weight"]).any()
    with pytest.raises(TypeError, match="allow_mising"):
        wider.load_parameters(tmp_path / "m", allow_mising=True)  # type: ignore[call-arg]


def test_wrong_shapes_change_nothing(tmp_path: Path) -> None:
    net_of(5).save_parameters(tmp_path / "m")
    net = net_of(4)
    before = values(net)
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(5, 3\), the net wants \(4, 3\)"):
        net.load_parameters(tmp_path / "m")
    assert same(before, values(net))
    half = nn.HybridSequential(nn.Dense(5), nn.BatchNorm(), nn.Dense(3))
    with pytest.raises(ValueError, match=r"'2.weight' has shape \(2, 5\), the net wants \(3, \?\)"):
        half.load_parameters(tmp_path / "m")
    assert not half[0].weight.initialized


def test_dtypes(tmp_path: Path) -> None:
    net = net_of()
    net.save_parameters(tmp_path / "m")
    double = net_of(seed=3)
    double.cast("float64")
    with pytest.raises(ValueError, match="'0.weight' is float32, the net's is float64; set cast_dtype=True"):
        double.load_parameters(tmp_path / "m")
    double.load_parameters(tmp_path / "m", cast_dtype=True)
    assert double[0].weight.dtype == np.float64 and same(values(net), values(double))
    double.load_parameters(tmp_path / "m", cast_dtype=True, dtype_source="saved")
    assert double[0].weight.dtype == np.float32 and double[0].weight.grad.dtype == np.float32
    with pytest.raises(ValueError, match="dtype_source"):
        double.load_parameters(tmp_path / "m", dtype_source="file")


@pytest.mark.parametrize("damage", ["empty", "short", "header", "text", "tail"])
def test_a_damaged_file_leaves_the_net_as_it_was(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m"
    net_of(seed=5).save_parameters(path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "short": whole[: len(whole) // 2],
            "header": (10**12).to_bytes(8, "little") + whole[8:],
            "text": b"these are no parameters, but it is a text of some length",
            "tail": whole[:-1],
        }[damage]
    )
    net = net_of(seed=6)
    before = values(net)
    with pytest.raises(FileError, match="m is not a whole safetensors file.*test_files.py"):
        net.load_parameters(path)
    assert same(before, values(net)) and net(nd.ones((1, 3))).shape == (1, 2)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.*test_files.py"):
        net_of().load_parameters(tmp_path / "nothing")
    with pytest.raises(OSError, match="cannot write .*test_files.py"):
        net_of().save_parameters(tmp_path / "no folder" / "m")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    net = net_of(seed=7)
    net.save_parameters(tmp_path / "m")
    big = nn.Dense(300, in_units=300)
    big.initialize()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, limits[1])
    )  # files cannot grow further: as if the disk were full
    try:
        with pytest.raises(OSError, match="cannot write .*untouched.*test_files.py"):
            big.save_parameters(tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["m"]
    other = net_of(seed=8)
    other.load_parameters(tmp_path / "m")
    assert same(values(net), values(other))


def tied(share: bool) -> nn.HybridSequential:
    one, two = nn.Dense(3, in_units=3), nn.Dense(3, in_units=3)
    if share:
        two.weight = one.weight
    net = nn.HybridSequential(one, two)
    net.initialize()
    return net


@pytest.mark.parametrize("share", [False, True])
def test_shared_parameters_are_stored_once_and_fit_everywhere(tmp_path: Path, share: bool) -> None:
    net = tied(True)
    net.save_parameters(tmp_path / "m")
    assert sorted(nd.load(tmp_path / "m")) == ["0.bias", "0.weight", "1.bias"]
    other = tied(share)
    other.load_parameters(tmp_path / "m")
    assert (other[1].weight.asnumpy() == net[0].weight.asnumpy()).all()


def test_one_name_of_a_shared_parameter_is_enough_and_two_must_agree(tmp_path: Path) -> None:
    apart, net = tied(False), tied(True)
    before = values(net)
    apart.save_parameters(tmp_path / "m")
    with pytest.raises(
        ValueError, match="different values for '0.weight' and '1.weight', which are one shared parameter"
    ):
        net.load_parameters(tmp_path / "m")
    assert same(before, values(net))
    apart[1].weight.set_data(apart[0].weight)
    apart.save_parameters(tmp_path / "m")
    net.load_parameters(tmp_path / "m")
    assert (net[0].weight.asnumpy() == apart[0].weight.asnumpy()).all()
    arrays = nd.load(tmp_path / "m")
    del arrays["0.weight"]
    net.load_dict(arrays)


def test_a_damaged_list_of_shared_names(tmp_path: Path) -> None:
    nd.save(tmp_path / "m", {"weight": nd.ones((1, 1))}, {"shared": '{"a": "b"}'})
    with pytest.raises(FileError, match="list of shared names is damaged"):
        nn.Dense(1).load_parameters(tmp_path / "m")


def test_load_dict() -> None:
    net, other = net_of(seed=1), net_of(seed=2)
    other.load_dict(dict(net.collect_params()))
    assert same(values(net), values(other))
    with pytest.raises(ValueError, match="the dict lacks '0.weight'"):
        other.load_dict({})
