"""The machine as the compiler sees it, and the restrictions."""

from __future__ import annotations

import re

import pytest

from gluonish.kernels import target
from gluonish.kernels.kernel import Kernel

SCALE = Kernel(
    "scale",
    """
def scale(args, begin, end):
    x = load_i64(args, 0)
    for i in range(begin, end):
        store_f32(x, i, load_f32(x, i) * float32(3.0))
""",
)


def test_host_is_the_widest_level() -> None:
    host = target.host()
    assert target.named(target.available()[0]) == host
    assert host.vector_bytes in (16, 32, 64) and host.registers in (16, 32)


def test_levels_narrow() -> None:
    widths = [target.named(level).vector_bytes for level in target.available()]
    assert widths == sorted(widths, reverse=True)
    assert target.named("generic").vector_bytes == 16


@pytest.mark.skipif(not target.host().x86, reason="x86 levels")
def test_baseline_x86_has_no_fma_and_16_registers() -> None:
    generic = target.named("generic")
    assert (generic.fma, generic.registers, generic.rounding) == (False, 16, False)


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'avx9' is unknown; the targets are avx512, avx2, generic"):
        target.named("avx9")


def test_a_level_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "available", lambda: ("generic",))
    with pytest.raises(ValueError, match="does not run on this machine"):
        target.named("avx2")


def test_use_restricts_a_block_and_nests() -> None:
    before, generic = target.current(), target.named("generic")
    with target.use(generic):
        assert target.current() == generic
        with target.use(target.host()):
            assert target.current() == target.host()
        assert target.current() == generic
    assert target.current() == before


def test_environment_restricts_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLUONISH_CPU", "generic")
    assert target.current() == target.named("generic")
    monkeypatch.setenv("GLUONISH_CPU", "pentium")
    with pytest.raises(ValueError, match="GLUONISH_CPU: target 'pentium' is unknown"):
        target.current()


@pytest.mark.skipif(not target.host().x86, reason="x86 registers")
@pytest.mark.parametrize("level", target.available())
def test_code_uses_the_registers_of_its_target_and_no_wider(level: str) -> None:
    with target.use(target.named(level)):
        assembly = SCALE.assembly
    widest = {"avx512": "zmm", "avx2": "ymm", "generic": "xmm"}[level]
    wider = {"avx512": "tmm", "avx2": "zmm", "generic": "[yz]mm"}[level]
    assert re.search(rf"mulps\t.*%{widest}", assembly)
    assert not re.search(f"%{wider}", assembly)
