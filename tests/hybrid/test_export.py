"""Exported models: the same answers in another process, and damaged files that do no harm."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, export_model, hybridize, import_model
from gluonish.nd import FileError

ROOT = Path(__file__).resolve().parents[2]


def floats(rng: np.random.Generator, *shape: int) -> nd.NDArray:
    return nd.NDArray(rng.standard_normal(shape).astype(np.float32))


def round_trip(function: Any, path: Path, *args: Any, **kwargs: Any) -> Any:
    """The function after it was exported for such arguments and read again."""
    compiled = compile_function(function, name="model")
    export_model(compiled, path / "model", {}, *args, **kwargs)
    return import_model(path / "model")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, nd.NDArray):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(
            a.asnumpy(), b.asnumpy(), 1e-5, 1e-5, equal_nan=True
        )
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_net_in_a_fresh_process(rng: np.random.Generator, tmp_path: Path) -> None:
    net = nn.HybridSequential(
        nn.Conv2D(4, 3, padding=1, activation="relu"),
        nn.BatchNorm(),
        nn.MaxPool2D(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Dense(3),
    )
    net.initialize("normal")
    net.hybridize()
    x = floats(rng, 5, 2, 8, 8)
    with autograd.train_mode():
        net(x)
    wanted = net(x).asnumpy()
    net.export(tmp_path / "net")
    np.save(tmp_path / "x.npy", x.asnumpy())
    script = (
        "import sys; from pathlib import Path; import numpy as np; import gluonish as gl; from gluonish import nd\n"
        "path = Path(sys.argv[1]); net = gl.SymbolBlock.imports(path / 'net'); x = nd.array(np.load(path / 'x.npy'))\n"
        "eager = net(x); net.hybridize(); hybrid = net(x); small = net(x[:2])\n"
        "np.savez(path / 'out.npz', eager=eager.asnumpy(), hybrid=hybrid.asnumpy(), small=small.asnumpy())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=ROOT, timeout=120)
    out = np.load(tmp_path / "out.npz")
    assert np.allclose(out["eager"], wanted, rtol=1e-4, atol=1e-5) and np.allclose(
        out["hybrid"], wanted, rtol=1e-4, atol=1e-5
    )
    assert np.allclose(out["small"], wanted[:2], rtol=1e-4, atol=1e-5)


def test_an_imported_net_trains(rng: np.random.Generator, tmp_path: Path) -> None:
    net = nn.HybridSequential(nn.Dense(8, activation="tanh"), nn.Dense(1))
    net.initialize("normal")
    x, y = floats(rng, 16, 4), floats(rng, 16, 1)
    net.hybridize()
    net(x)
    net.export(tmp_path / "net")
    again = gl.SymbolBlock.imports(tmp_path / "net")
    assert list(again.collect_params()) == list(net.collect_params())
    losses = []
    for each in (net, again):
        each.hybridize()
        trainer = gl.Trainer(each.collect_params(), "sgd", {"learning_rate": 0.1})
        for _ in range(5):
            with autograd.record():
                loss = ((each(x) - y) ** 2).mean()
            loss.backward()
            trainer.step(1)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_structures(rng: np.random.Generator, tmp_path: Path) -> None:
    def function(batch: Any, scale: Any = None, *, mode: str = "a") -> Any:
        x, y = batch["x"], batch["pair"][1]
        out = x * 2 if y is None else x + y
        return {"out": out, "more": [out.sum(), None, ("text", 3, 2.5, True)], "same": out}

    x, y = floats(rng, 3, 4), floats(rng, 4)
    for args, kwargs in (
        (({"x": x, "pair": (None, y)},), {}),
        (({"x": x, "pair": [x, None]}, 2.5), {"mode": "b"}),
        (({"x": x, "pair": (y, x)}, -0.0), {"mode": "a"}),
    ):
        again = round_trip(function, tmp_path, *args, **kwargs)
        assert same(function(*args, **kwargs), again(*args, **kwargs))
        assert same(function(*args, **kwargs), hybridize(again)(*args, **kwargs))
        with pytest.raises(TypeError, match=r"exported for arguments.*test_export\.py"):
            again(x)


def test_attributes_of_every_kind(rng: np.random.Generator, tmp_path: Path) -> None:
    index = nd.NDArray(np.array([1, 0]))

    def function(x: Any) -> Any:
        n, m = x.shape
        return (
            x[1:, ::-1],
            x[..., None, -1],
            nd.concat([x, x * np.float32(2)], 1),
            nd.pad(x, [(1, 0), (0, 2)], -np.inf),
            x.reshape((m, n)).swapaxes(0, 1),
            nd.full((n, 2), np.nan),
            x.astype("float64") / n + m // 2 - n % 3,
            nd.take(x, index),
            nd.arange(n * 2, 0, -2),
            nd.where(x > 0, x, -np.inf).max(1, keepdims=True),
            nd.zeros((0, 2)),
            x * 1e-30 + 1e30,
        )

    again = round_trip(function, tmp_path, floats(rng, 4, 6))
    for shape in ((4, 6), (7, 3), (2, 2)):
        x = floats(rng, *shape)
        assert same(function(x), again(x)), shape
        assert same(function(x), hybridize(again)(x)), shape


def test_sizes_outside_the_guards_are_refused(rng: np.random.Generator, tmp_path: Path) -> None:
    def function(x: Any, y: Any) -> Any:
        if x.shape[0] > 3:
            return x + y
        return x - y

    again = round_trip(function, tmp_path, floats(rng, 5, 2), floats(rng, 5, 2))
    x = floats(rng, 9, 4)
    one = floats(rng, 5, 1)
    assert same(again(x, x), x + x) and same(again(one, one), one + one)
    for a, b in (((3, 2), (3, 2)), ((5, 2), (5, 3)), ((5,), (5,))):
        with pytest.raises(ValueError, match=r"was exported for .*test_export\.py"):
            again(floats(rng, *a), floats(rng, *b))
    with pytest.raises(ValueError, match=r"3 < s0, s0 is dimension 0 of array 0; got \(3, 2\), \(3, 2\) \(test_exp"):
        again(floats(rng, 3, 2), floats(rng, 3, 2))
    with pytest.raises(ValueError, match="float32"):
        again(x.astype("float64"), x.astype("float64"))


def test_random_numbers_go_on_as_in_the_original(rng: np.random.Generator, tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return x + nd.random.uniform(shape=x.shape), nd.random.normal(shape=(3,))

    again = round_trip(function, tmp_path, nd.ones((4, 5)))
    for run in (again, hybridize(again)):
        found = []
        for f in (function, run):
            nd.random.seed(9)
            found.append([[r.asnumpy() for r in f(nd.ones((n, 3)))] for n in (2, 7, 2)])
            found[-1].append([nd.random.uniform(shape=(2,)).asnumpy()])
        for a, b in zip(*found):
            assert all(np.allclose(s, t, rtol=1e-5, atol=1e-6) for s, t in zip(a, b, strict=True))


def test_state_updates_go_on(rng: np.random.Generator, tmp_path: Path) -> None:
    count = nd.zeros((1,))

    def function(x: Any) -> Any:
        count[:] = count + 1
        return x * count

    again = round_trip(function, tmp_path, nd.ones((2,)))
    assert count.tolist() == [0]
    compiled = hybridize(again)
    assert [f(nd.ones((2,))).tolist()[0] for f in (again, again, compiled, compiled)] == [1, 2, 3, 4]


def test_exports_are_of_predict_mode_without_recording(rng: np.random.Generator, tmp_path: Path) -> None:
    w = floats(rng, 4)
    w.attach_grad()

    def function(x: Any) -> Any:
        return nd.dropout(x * w, 0.5) if autograd.is_training() else x * w

    with autograd.record():
        again = round_trip(function, tmp_path, floats(rng, 2, 4))
    x = floats(rng, 3, 4)
    assert same(again(x), x * w)


def test_export_needs_a_call_or_an_example(rng: np.random.Generator, tmp_path: Path) -> None:
    compiled = compile_function(lambda x: x * 2)
    with pytest.raises(ValueError, match=r"call the model once.*test_export\.py"):
        export_model(compiled, tmp_path / "m", {})
    compiled(floats(rng, 3, 2))
    export_model(compiled, tmp_path / "m", {})
    assert same(import_model(tmp_path / "m")(nd.ones((5, 7))), nd.ones((5, 7)) * 2)


def test_a_failed_export_leaves_the_old_files(rng: np.random.Generator, tmp_path: Path) -> None:
    round_trip(lambda x: x * 2, tmp_path, nd.ones((2,)))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    value = object()
    with pytest.raises((TypeError, ValueError)):
        round_trip(lambda x, v: x * 3, tmp_path, nd.ones((2,)), value)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


# --- files that are damaged or hostile --------------------------------------------------------------------------------
@pytest.fixture
def files(rng: np.random.Generator, tmp_path: Path) -> Path:
    w = floats(rng, 4, 3)
    compiled = compile_function(lambda x: nd.relu(x @ w)[1:].reshape((-1,)) * x.shape[0], name="model")
    export_model(compiled, tmp_path / "model", {"weight": w}, floats(rng, 5, 4))
    return tmp_path / "model"


def refused(path: Path, text: str) -> None:
    Path(f"{path}.json").write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=r"test_export\.py"):
        import_model(path)


def test_missing_and_mixed_files(files: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"test_export\.py"):
        import_model(tmp_path / "nothing")
    other = compile_function(lambda x: x * nd.ones((7,)), name="other")
    export_model(other, tmp_path / "other", {}, nd.ones((7,)))
    Path(f"{files}.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(FileError):
        import_model(files)
    Path(f"{files}.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        import_model(files)


def test_text_that_is_no_model(files: Path) -> None:
    good = Path(f"{files}.json").read_text()
    for text in (
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "[" * 100_000,
        good[: len(good) // 2],
        good.replace('"version": 1', '"version": 99'),
    ):
        refused(files, text)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    out = [path] if path else []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        out += places(value, (*path, key))
    return out


BAD = [
    None,
    -1,
    10**30,
    1.5,
    True,
    "",
    "s0 +",
    "__import__('os')",
    "s0.real",
    "s9",
    "9" * 5000,
    [],
    {},
    [[]],
    {"x": 1},
    {"size": "1)("},
    "a" * 300,
]


def test_any_damage_is_a_clear_error_or_does_no_harm(files: Path) -> None:
    """Each value of the document in turn becomes nonsense or is left out: reading and calling raise ordinary errors."""
    good = json.loads(Path(f"{files}.json").read_text())
    x = nd.ones((5, 4))
    wanted = import_model(files)(x).asnumpy()
    for place in places(good):
        for bad in [*BAD, "leave out"]:
            document = copy.deepcopy(good)
            holder: Any = document
            for key in place[:-1]:
                holder = holder[key]
            if bad == "leave out":
                del holder[place[-1]]
            else:
                holder[place[-1]] = bad
            Path(f"{files}.json").write_text(json.dumps(document))
            try:
                model = import_model(files)
            except FileError as error:
                assert "test_export.py" in str(error)
                continue
            try:
                out = model(x)
            except (ValueError, TypeError, IndexError) as error:
                assert "test_export.py" in str(error), (place, bad, error)
                continue
            if place[0] not in ("name", "nodes", "results", "guards", "outputs"):
                assert same(nd.NDArray(wanted), out), (place, bad)


def test_deep_nests_do_not_crash(files: Path) -> None:
    good = json.loads(Path(f"{files}.json").read_text())
    deep = '{"list": [' * 800 + '"*"' + "]}" * 800
    formulas = ["(" * depth + "s0" + ")" * depth for depth in (150, 900)] + [
        "+".join(["s0"] * count) for count in (90, 5000)
    ]
    for key, values in (
        ("arguments", [deep]),
        ("results", [deep]),
        ("guards", [json.dumps([[f, "<", "3", False]]) for f in formulas]),
    ):
        for value in values:
            text = json.dumps({**good, key: "HERE"}).replace('"HERE"', value)
            Path(f"{files}.json").write_text(text)
            try:
                import_model(files)(nd.ones((5, 4)))
            except (FileError, ValueError, TypeError) as error:
                assert "test_export.py" in str(error)


def test_nothing_in_a_file_is_executed(files: Path, tmp_path: Path) -> None:
    good = Path(f"{files}.json").read_text()
    mark = tmp_path / "executed"
    code = f"__import__('pathlib').Path('{mark}').touch()"
    for old in ('"s0"', '"s1"', '"relu"', '"float32"', '"model"'):
        Path(f"{files}.json").write_text(good.replace(old, json.dumps(code)))
        try:
            import_model(files)(nd.ones((5, 4)))
        except (FileError, ValueError, TypeError):
            pass
        assert not mark.exists()
