"""Random numbers: the published Philox words, the same bits for the same seed, and distributions that look right."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from gluonish import autograd, nd
from gluonish.nd.ops.random import philox, uniform_op

MASK = 0xFFFFFFFF


def reference(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 word by word, as the paper writes it."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k0, q & MASK, (p >> 32) ^ d ^ k1, p & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return [a, b, c, d]


KNOWN = [  # counter, key, words: from the paper's own test vectors
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_reference_gives_the_published_words(counter: str, key: str, words: str) -> None:
    numbers = [[int(w, 16) for w in text.split()] for text in (counter, key, words)]
    assert reference(numbers[0], numbers[1]) == numbers[2]


def test_philox_is_the_reference(rng: np.random.Generator) -> None:
    assert [f"{w:08x}" for w in philox(0, np.array([0]))[0]] == KNOWN[0][2].split()
    for seed in (1, 2**63 - 1, int(rng.integers(2**62))):
        counters = np.array([0, 1, 2**32 - 1, 2**32, 2**40 + 7, int(rng.integers(2**62))], np.uint64)
        for counter, words in zip(counters.tolist(), philox(seed, counters).tolist(), strict=True):
            assert words == reference([counter & MASK, counter >> 32, 0, 0], [seed & MASK, seed >> 32])


def test_element_i_is_word_i_whatever_the_shape() -> None:
    key = nd.array([123, 2**33 + 5])
    flat = uniform_op(key, shape=(35,)).asnumpy()
    assert np.array_equal(uniform_op(key, shape=(5, 7)).asnumpy().ravel(), flat)
    assert np.array_equal(uniform_op(key, shape=(11,)).asnumpy(), flat[:11])
    words = philox(123, np.arange(9, dtype=np.uint64) + np.uint64(2**33 + 5)).ravel()[:35]
    assert np.array_equal(flat, (words >> 8) / 2**24)


DRAWS = {
    "uniform": lambda: nd.random.uniform(-1, 3, (40,)),
    "normal": lambda: nd.random.normal(1, 2, (40,)),
    "bernoulli": lambda: nd.random.bernoulli(0.3, (40,)),
    "randint": lambda: nd.random.randint(3, 50, (40,)),
    "permutation": lambda: nd.random.permutation(40),
    "dropout": lambda: nd.dropout(nd.ones(40), 0.5),
    "exponential": lambda: nd.random.exponential(2, (40,)),
    "gamma": lambda: nd.random.gamma(0.7, 2, (40,)),
    "poisson": lambda: nd.random.poisson(7, (40,)),
    "many": lambda: nd.random.poisson(70, (40,)),
    "multinomial": lambda: nd.random.multinomial(nd.ones(9), 40),
    "shuffle": lambda: nd.random.shuffle(nd.arange(40)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_seed_fixes_every_later_draw_and_no_draw_repeats(name: str) -> None:
    runs = []
    for _ in range(2):
        nd.random.seed(7)
        runs.append([DRAWS[name]().tolist() for _ in range(3)])
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[0][1] != runs[0][2]
    nd.random.seed(8)
    assert DRAWS[name]().tolist() != runs[0][0]


def test_what_was_drawn_before_moves_the_stream_by_whole_blocks() -> None:
    nd.random.seed(1)
    nd.random.uniform(shape=5)  # two blocks of four
    after = nd.random.uniform(shape=4).tolist()
    nd.random.seed(1)
    assert nd.random.uniform(shape=12).tolist()[8:] == after


def test_threads_never_draw_the_same_numbers() -> None:
    seen: list[float] = []
    lock = threading.Lock()

    def draw() -> None:
        for _ in range(50):
            values = nd.random.uniform(shape=4, dtype="float64").tolist()
            with lock:
                seen.append(values[0] + values[1] * 2**24)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(seen)) == 200


def distance(values: np.ndarray, cumulative: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, times the root of the count; above 2.6 once in 300,000."""
    count = len(values)
    steps = np.arange(count)
    return float(np.maximum(cumulative - steps / count, (steps + 1) / count - cumulative).max() * math.sqrt(count))


def test_uniform_numbers_are_uniform() -> None:
    values = np.sort(nd.random.uniform(shape=100_000).asnumpy().astype(float))
    assert values[0] >= 0 and values[-1] < 1
    assert distance(values, values) < 2.6
    assert abs(values.mean() - 0.5) < 5 / math.sqrt(12e5) and abs(values.var() - 1 / 12) < 0.002
    between = nd.random.uniform(-2, 5, 10_000).asnumpy()
    assert between.min() >= -2 and between.max() <= 5 and abs(between.mean() - 1.5) < 0.2


def test_neighbours_are_independent() -> None:
    values = nd.random.uniform(shape=100_000).asnumpy().astype(float) - 0.5
    for gap in (1, 2, 3, 4, 8):
        assert abs(np.mean(values[gap:] * values[:-gap]) * 12) < 5 / math.sqrt(1e5), gap


def test_normal_numbers_are_normal() -> None:
    values = np.sort(nd.random.normal(shape=100_000).asnumpy().astype(float))
    assert np.isfinite(values).all()
    cumulative = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in values])
    assert distance(values, cumulative) < 2.6
    shifted = nd.random.normal(5, 0.1, (10_000,)).asnumpy()
    assert abs(shifted.mean() - 5) < 0.01 and abs(shifted.std() - 0.1) < 0.01


def test_the_largest_draw_does_not_break_the_normal_formula() -> None:
    for extreme in (0.0, 1 - 2.0**-24):
        assert math.isfinite(math.sqrt(-2 * math.log(1 - extreme)))


def test_bernoulli_and_randint() -> None:
    draws = nd.random.bernoulli(0.2, (50_000,))
    assert draws.dtype == np.float32 and abs(draws.mean().item() - 0.2) < 0.01
    assert nd.random.bernoulli(0.0, 9).sum().item() == 0 and nd.random.bernoulli(1.0, 9).sum().item() == 9
    whole = nd.random.randint(-3, 4, (70_000,))
    counts = np.bincount(whole.asnumpy() + 3)
    assert whole.dtype == np.int64 and len(counts) == 7 and abs(counts - 10_000).max() < 600
    assert nd.random.randint(5, shape=1000).max().item() == 4
    assert nd.random.randint(2, shape=3, dtype="int32").dtype == np.int32
    assert sorted(nd.random.permutation(50).tolist()) == list(range(50))


def test_shapes_dtypes_and_the_second_spelling() -> None:
    assert nd.random.uniform().shape == () and nd.random.uniform(shape=(0, 3)).shape == (0, 3)
    assert nd.random.normal(size=(2, 3)).shape == (2, 3) and nd.random.uniform(size=4).shape == (4,)
    assert nd.random.uniform(shape=2).dtype == np.float32
    assert nd.random.normal(shape=2, dtype="float64").dtype == np.float64


def test_refusals() -> None:
    for attempt in (
        lambda: nd.random.seed(-1),
        lambda: nd.random.seed(1.5),  # type: ignore[arg-type]
        lambda: nd.random.bernoulli(1.5),
        lambda: nd.random.randint(5, 5),
        lambda: nd.random.randint(0, 2**25),
    ):
        with pytest.raises(ValueError, match="test_random.py"):
            attempt()


def test_random_numbers_are_constants_to_the_tape() -> None:
    x = nd.ones(5)
    x.attach_grad()
    with autograd.record():
        noise = nd.random.normal(shape=5)
        out = x * noise
    out.backward()
    assert np.array_equal(x.grad.asnumpy(), noise.asnumpy())


def chi_square(values: np.ndarray, probabilities: np.ndarray) -> float:
    """How far counts are from what is expected, in standard deviations; rare values are one class."""
    counts = np.bincount(values.astype(int), minlength=len(probabilities))
    expected = probabilities * len(values)
    rare = expected < 8
    counts = np.append(counts[: len(expected)][~rare], len(values) - counts[: len(expected)][~rare].sum())
    expected = np.append(expected[~rare], len(values) - expected[~rare].sum())
    expected = np.maximum(expected, 1e-9)
    freedom = len(expected) - 1
    return float((((counts - expected) ** 2 / np.maximum(expected, 1)).sum() - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("lam", [0.3, 4.0, 9.99, 10.0, 33.0, 5000.0])
def test_poisson(lam: float) -> None:
    values = nd.random.poisson(lam, (60_000,)).asnumpy()
    probabilities = np.array([math.exp(k * math.log(lam) - lam - math.lgamma(k + 1)) for k in range(int(2 * lam) + 40)])
    assert values.min() >= 0 and chi_square(values, probabilities) < 6
    assert abs(values.mean() - lam) < 5 * math.sqrt(lam / 60_000)
    assert nd.random.poisson(0, 5).sum().item() == 0 and nd.random.poisson(3, 2, dtype="int64").dtype == np.int64


@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.5, 80.0])
def test_gamma_and_exponential(alpha: float) -> None:
    values = np.sort(nd.random.gamma(alpha, 1.0, (50_000,)).asnumpy().astype(float))
    # the distribution function by summing the density finely, in the variable x^q, in which it has no pole
    q = min(alpha, 1.0)
    grid = np.linspace(0, values[-1] ** q, 400_001)
    middle = ((grid[1:] + grid[:-1]) / 2) ** (1 / q)
    density = np.exp((alpha - q) * np.log(middle) - middle - math.lgamma(alpha)) / q
    cumulative = np.interp(values**q, grid, np.append(0, np.cumsum(density * np.diff(grid))))
    assert np.isfinite(values).all() and values[0] >= 0 and distance(values, cumulative) < 2.6
    times = np.sort(nd.random.exponential(0.5, (50_000,)).asnumpy().astype(float))
    assert distance(times, 1 - np.exp(-2 * times)) < 2.6
    assert abs(nd.random.gamma(alpha, 3.0, 50_000).mean().item() / (3 * alpha) - 1) < 6 / math.sqrt(alpha * 50_000)


def test_multinomial_and_shuffle() -> None:
    p = np.array([[0.1, 0.0, 0.6, 0.3], [1.0, 1.0, 1.0, 1.0]], "f4")
    drawn = nd.random.multinomial(nd.array(p), 30_000)
    assert drawn.shape == (2, 30_000) and drawn.dtype == np.int64
    for row, weights in zip(drawn.asnumpy(), p / p.sum(1, keepdims=True), strict=True):
        counts = np.bincount(row, minlength=4)
        assert (counts[weights == 0] == 0).all() and abs(counts / 30_000 - weights).max() < 0.02
    assert nd.random.multinomial(nd.array(p)).shape == (2,)
    mixed = nd.random.shuffle(nd.array(np.arange(60).reshape(30, 2))).asnumpy()
    assert (np.diff(mixed, axis=1) == 1).all() and sorted(mixed[:, 0]) == list(range(0, 60, 2))


def test_hybridized_draws_are_the_eager_ones() -> None:
    import gluonish as gl

    def draws() -> list[nd.NDArray]:
        r = nd.random
        return [
            r.exponential(2, 9), r.gamma(0.7, 2, 9), r.poisson(7, 9), r.poisson(70, 9), r.multinomial(nd.ones(5), 9)
        ]  # fmt: skip

    compiled = gl.hybridize(draws)
    for _ in range(2):
        nd.random.seed(5)
        eager = draws()
        nd.random.seed(5)
        for a, b in zip(eager, compiled(), strict=True):
            np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=2e-6)
    with pytest.raises(NotImplementedError, match="permutation"):
        gl.hybridize(lambda x: nd.random.shuffle(x))(nd.arange(4))


def test_what_distributions_refuse() -> None:
    for draw, words in (
        (lambda: nd.random.poisson(-1), "lam"),
        (lambda: nd.random.gamma(0), "alpha"),
        (lambda: nd.random.exponential(-2), "scale"),
        (lambda: nd.random.multinomial(nd.array(1.0)), "last axis"),
    ):
        with pytest.raises(ValueError, match=words):
            draw()
    with pytest.raises(AttributeError, match="cauchy"):
        nd.random.cauchy()
