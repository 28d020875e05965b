"""The networks of the zoo: their sizes, and what each does in both modes, compiled and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, nn, zoo

# the smallest image, and parameters that train as torchvision and Gluon count them
NETWORKS = {
    "resnet18_v1": (32, 11_689_512),
    "resnet50_v1b": (32, 25_557_032),
    "mobilenet_v2_1_0": (32, 3_504_872),
    "inception_v3": (75, 23_834_568),
}
TRANSFORMERS = {"bert", "minilm_l6_384", "gpt2", "vit_small_patch16_224"}  # see test_transformers.py
NARROW = {"inception_v3": 1 / 16}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def narrow(name: str, classes: int = 5) -> Any:
    net = zoo.get_model(name, classes=classes, multiplier=NARROW.get(name, 1 / 8))
    net.initialize("xavier")
    return net


def images(rng: np.random.Generator, count: int, size: int) -> Any:
    return nd.array(rng.standard_normal((count, 3, size, size)).astype(np.float32))


def test_the_table_is_of_all_models() -> None:
    assert set(NETWORKS) | TRANSFORMERS | {"lstm_lm"} == set(zoo.MODELS)


@EVERY
def test_the_number_of_weights_is_the_known_one(name: str) -> None:
    net = zoo.get_model(name)
    net.infer_shape(nd.zeros((1, 3, NETWORKS[name][0], NETWORKS[name][0])))
    trained = [p for p in net.collect_params().values() if p.grad_req != "null"]
    assert sum(int(np.prod(p.shape)) for p in trained) == NETWORKS[name][1]


@EVERY
def test_compiled_is_the_same_at_any_size(name: str, rng: np.random.Generator) -> None:
    smallest = NETWORKS[name][0]
    net = narrow(name)
    inputs = [images(rng, 2, smallest), images(rng, 3, smallest + 14)]
    eager = [net(x).asnumpy() for x in inputs]
    net.hybridize()
    for x, wanted in zip(inputs, eager):
        found = net(x).asnumpy()
        assert found.shape == (len(x), 5)
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


@EVERY
def test_training_compiled_is_the_same(name: str, rng: np.random.Generator) -> None:
    """In float64: batches of few numbers in the last layers make gradients sensitive to rounding."""
    x = images(rng, 4, NETWORKS[name][0]).astype("float64")
    head = nd.array(rng.standard_normal((4, 5)))
    net = narrow(name)
    net.cast("float64")
    net(x)
    start = {n: p.asnumpy() for n, p in net.collect_params().items()}
    found = []
    for hybrid in (False, True):
        for n, p in net.collect_params().items():
            p.set_data(start[n])
        net.hybridize(hybrid)
        nd.random.seed(7)  # Inception draws for its dropout
        with autograd.record():
            out = net(x)
        out.backward(head)
        named = net.collect_params().items()
        first = next(p for n, p in named if n.endswith("weight"))
        found.append([out.asnumpy(), net.output.weight.grad.asnumpy(), first.grad.asnumpy()])
        found[-1] += [p.asnumpy() for n, p in named if n.endswith("running_var")]
    for eager, compiled in zip(*found, strict=True):
        assert np.isfinite(eager).all() and np.abs(eager).max() > 0
        assert np.abs(compiled - eager).max() < 1e-6 * np.abs(eager).max()


@EVERY
def test_the_two_parts_are_attributes(name: str, rng: np.random.Generator) -> None:
    net = narrow(name)
    x = images(rng, 2, NETWORKS[name][0])
    vectors = net.features(x)
    np.testing.assert_allclose(net.output(vectors).asnumpy(), net(x).asnumpy(), rtol=1e-5, atol=1e-6)
    net.output = nn.Dense(3)
    net.output.initialize()
    assert vectors.ndim == 2 and net(x).shape == (2, 3)


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match=r"no model 'resnet50_v1'; the nearest: resnet50_v1b, .*test_zoo.py"):
        zoo.get_model("resnet50_v1")
    with pytest.raises(ValueError, match="no model 'zzz'; the nearest: "):
        zoo.get_model("zzz")
    with pytest.raises(NotImplementedError, match=r"no pretrained weights .*load_parameters.*test_zoo.py"):
        zoo.get_model("resnet18_v1", pretrained=True)
    with pytest.raises(ValueError, match="multiplier must be positive"):
        zoo.get_model("resnet18_v1", multiplier=0)
    assert isinstance(zoo.get_model("ResNet18_v1"), zoo.ResNetV1)
