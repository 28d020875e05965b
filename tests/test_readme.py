"""What the README says of the code is true. (Its tour runs as a doctest of its own.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def _blocks(language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def test_the_two_commands_are_there() -> None:
    commands = [block.strip() for block in _blocks()]
    assert commands == ["pip install . && gluonish demo", "pip install '.[test]' && pytest"]


def test_the_tour_has_about_thirty_lines() -> None:
    tour = _blocks("python")[0]
    assert 25 <= sum(line.startswith((">>>", "...")) for line in tour.splitlines()) <= 35


@pytest.mark.parametrize("place", sorted(set(re.findall(r"[`(]((?:gluonish|tests|notebooks)/[\w./]*)[`)]", TEXT))))
def test_paths_exist(place: str) -> None:
    assert (ROOT / place).exists()


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links and all((ROOT / link).exists() for link in links)


def test_the_op_is_whole() -> None:
    """The record from the README, in a process of its own: eager, differentiated twice, compiled."""
    recipe = next(block for block in _blocks("python") if block.startswith("softsign"))
    check = """
import numpy as np
import gluonish as gl
from gluonish import autograd, nd
from gluonish.nd.ops import elementwise
exec(recipe, vars(elementwise))
softsign = elementwise.softsign
values = np.linspace(-3, 3, 25, dtype="f4")
x = nd.array(values)
x.attach_grad()
with autograd.record():
    slope = autograd.grad(softsign(x).sum(), x, create_graph=True)
    total = slope.sum()
total.backward()
compiled = gl.hybridize(lambda x: softsign(x))(x).asnumpy()
np.testing.assert_allclose(softsign(x).asnumpy(), values / (1 + abs(values)), rtol=1e-6)
np.testing.assert_allclose(compiled, values / (1 + abs(values)), rtol=1e-6)
np.testing.assert_allclose(slope.asnumpy(), (1 + abs(values)) ** -2, rtol=1e-5)
np.testing.assert_allclose(x.grad.asnumpy(), -2 * np.sign(values) * (1 + abs(values)) ** -3, rtol=1e-5)
"""
    program = f"recipe = {recipe!r}\n{check}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
