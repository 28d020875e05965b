"""How the code is built, held by parsing it: which part imports which, what an import costs, what is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gluonish
from gluonish import nd
from gluonish.nd.op import OPS, Op

PACKAGE = Path(gluonish.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
ORDER = ["nd", "kernels", "hybrid", "block", "data", "zoo", "top"]  # a part imports itself and what stands before it
UPWARD: set[tuple[str, str]] = set()  # documented exceptions: (file, module); none so far
TOGETHER = {("data", "zoo"), ("zoo", "data")}  # parts that know nothing of each other


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(module: str) -> str:
    """The part of the package that a dotted name belongs to; what lies directly in the package is `top`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[1] in ORDER else "top"


def module_of(path: Path) -> str:
    pieces = [*path.relative_to(PACKAGE.parent).with_suffix("").parts]
    return ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """The modules of the package that a file imports, with the line and whether only a type checker reads it."""
    checking = {
        id(inner)
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, id(node) in checking


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    own = part_of(module_of(path))
    for name, line, _ in imports(path):
        if name.split(".")[0] != "gluonish":
            continue
        other = part_of(name)
        if other == "top" and own != "top":
            assert name.startswith("gluonish.__version__"), f"{name_of(path)}:{line} imports {name} from the top"
            continue
        fine = ORDER.index(other) <= ORDER.index(own) and (own, other) not in TOGETHER
        assert fine or (name_of(path), name) in UPWARD, f"{name_of(path)}:{line}: {own} imports {name}"


def test_exceptions_are_real() -> None:
    found = {(name_of(path), name) for path in FILES for name, _, _ in imports(path)}
    assert found >= UPWARD


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in ("nd", "ops")], ids=name_of)
def test_nd_needs_numpy_alone(path: Path) -> None:
    outside = {name.split(".")[0] for name, _, _ in imports(path)} - set(sys.stdlib_module_names)
    extras = {"ml_dtypes"} if path.name == "dtypes.py" else set()  # loaded by those who ask for bfloat16
    assert outside <= {"gluonish", "numpy"} | extras


IMPORTS = {
    "gluonish": ("numba", "llvmlite", "tqdm", "ml_dtypes", "gluonish.kernels", "gluonish.hybrid", "gluonish.block"),
    "gluonish.nd": ("numba", "llvmlite", "tqdm", "gluonish.kernels", "gluonish.hybrid", "gluonish.block"),
    "gluonish.block.nn, gluonish.data, gluonish.hybrid": ("numba",),
}


@pytest.mark.parametrize("modules", IMPORTS)
def test_imports_load_no_more_than_they_need(modules: str) -> None:
    program = f"import sys, {modules}; print(*[m for m in {IMPORTS[modules]} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_promised_name_exists() -> None:
    for name in dir(gluonish):
        assert getattr(gluonish, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gluonish.nonsense


# --- documentation ---------------------------------------------------------------------------------------------------
def public_modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "gluonish.")]
    return ["gluonish", *[m for m in found if not m.rsplit(".", 1)[1].startswith("_")]]


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; what stands inside a function is private to it."""
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        prefix, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue  # declarations for the type checker
            if isinstance(child, (ast.If, ast.Try)):
                stack.append((prefix, child))
            if not isinstance(child, (ast.ClassDef, ast.FunctionDef)) or child.name.startswith("_"):
                continue
            overridden = any(getattr(d, "attr", "") in ("setter", "overload") for d in child.decorator_list)
            if ast.get_docstring(child) is None and not overridden:
                yield f"{prefix}{child.name} (line {child.lineno})"
            if isinstance(child, ast.ClassDef):
                stack.append((f"{prefix}{child.name}.", child))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_everything_public_is_documented(path: Path) -> None:
    assert ast.get_docstring(TREES[path]), "the file does not say what is in it"
    assert list(undocumented(TREES[path])) == []


@pytest.mark.parametrize("module", ["nd", "autograd", "random", "nn", "loss", "init", "optimizer", "metric", "data"])
def test_everything_a_user_sees_has_words(module: str) -> None:
    """By looking instead of parsing: ops, classes and functions in the namespaces that users type."""
    namespace = getattr(gluonish, module)
    for name, value in vars(namespace).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if isinstance(value, Op):
            assert value.doc, f"{module}.{name}"
        elif getattr(value, "__module__", "").startswith("gluonish"):
            assert inspect.getdoc(value), f"{module}.{name}"


def test_methods_of_arrays_have_words() -> None:
    for name, value in vars(nd.NDArray).items():
        if not name.startswith("_") and (callable(value) or isinstance(value, property)):
            assert inspect.getdoc(value), name


# --- size and habits -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_habits_to_avoid(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")
    for node in ast.walk(TREES[path]):
        line = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ExceptHandler):
            names = ast.dump(node.type) if node.type is not None else "bare"
            swallows = all(isinstance(s, (ast.Pass, ast.Continue)) for s in node.body)
            everything = "'Exception'" in names or "'BaseException'" in names
            assert names != "bare", f"{line}: a bare except"
            assert not (swallows and everything), f"{line}: hides all errors"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            forbidden = ("pickle", "cPickle", "dill", "marshal", "shelve")
            assert not any(f"'{m}'" in ast.dump(node) for m in forbidden), f"{line}: files that can run code"


MAKERS = (
    *("Op", "_Where", "elementwise", "smooth_function", "_rounding", "_question"),
    *("_reduction", "_arg_op", "_scan", "_gradient_op"),
)


def test_ops_are_registered_once_each_in_one_file() -> None:
    """A name stands as the first argument of a record's maker in one file under nd/ops, and nowhere else."""
    places: dict[str, set[str]] = {name: set() for name in OPS}
    for path in FILES:
        for node in ast.walk(TREES[path]):
            maker = isinstance(node, ast.Call) and getattr(node.func, "id", "") in MAKERS
            if maker and isinstance(node.args[0], ast.Constant) and node.args[0].value in places:
                places[node.args[0].value].add(name_of(path))
    assert all(len(files) == 1 and files.pop().startswith("nd/ops/") for files in places.values())
    assert all(op.name == name for name, op in OPS.items())
    assert len({id(op) for op in OPS.values()}) == len(OPS)
    with pytest.raises(ValueError, match="registered twice"):
        from gluonish.nd.op import register

        register(OPS["add"])


@pytest.mark.parametrize("module", public_modules())
def test_modules_import_alone(module: str) -> None:
    if module != "gluonish.__main__":
        assert importlib.import_module(module).__doc__


# --- the checks of style and types, as configured in pyproject.toml --------------------------------------------------
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "--output-format", "concise", "."], ["mypy"]],
    ids=["ruff", "mypy"],
)
def test_style_and_types_are_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
