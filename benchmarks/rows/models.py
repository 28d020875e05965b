"""Whole networks of the zoo: predictions against onnxruntime, a training step against torch.

All sides have the same weights. onnxruntime gets the graph that gluonish traces (`onnx_model`), torch modules of
its own (`torch_twin`). BatchNorms have statistics and factors of their own, so leaving them out would be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, classes, numbers

STEPS = 3  # whose losses are compared
RATE, MOMENTUM = 0.001, 0.9
MULTIPLY_ADDS = {"resnet50_v1b": 4.09e9, "mobilenet_v2_1_0": 0.301e9, "inception_v3": 5.71e9, "resnet18_v1": 1.82e9}
STANDARD = {"inception_v3": 299}  # the size that those numbers are for; 224 otherwise


def _flops(sizes: Sizes, passes: int = 1) -> float:
    """Operations of the network, about: they grow with the pixels."""
    size = STANDARD.get(sizes["model"], 224)
    return 2.0 * passes * sizes["batch"] * MULTIPLY_ADDS[sizes["model"]] * (sizes["size"] / size) ** 2


def _network(sizes: Sizes) -> tuple[Any, Any]:
    """The network with its weights, and images."""
    from gluonish import nd, zoo

    net = zoo.get_model(sizes["model"], classes=sizes["classes"], multiplier=sizes["multiplier"])
    images = nd.array(numbers(50, sizes["batch"], 3, sizes["size"], sizes["size"]))
    net.initialize("zeros")
    net.infer_shape(images)
    for number, (name, parameter) in enumerate(net.collect_params().items()):
        kind, shape = name.rsplit(".", 1)[1], parameter.shape
        value = numbers(51 + number, *shape)
        if kind == "weight":  # He's scale
            fan_in = float(parameter.size) / shape[0]
            value *= (6 / fan_in) ** 0.5
        elif kind in ("gamma", "running_var"):
            value = 1 + value / 2
        else:
            value /= 10
        parameter.set_data(value)
    return net, images


# --- predictions ---
def _predict(name: str, about: str, model: str, batch: int, bar: float | None, smallest: int = 32) -> None:
    size = STANDARD.get(model, 224)
    sizes = {"model": model, "batch": batch, "size": size, "classes": 1000, "multiplier": 1.0}
    row = Row(
        name, f"{about}, batch {batch} of 3x{size}x{size}, predict", sizes,
        {"batch": min(batch, 2), "size": smallest, "classes": 7, "multiplier": 1 / 8},
        (BUSY,) if bar is None else (Bar("onnxruntime", bar), BUSY), _flops, group="models",
    )  # fmt: skip
    row.side("gluonish")(_gluonish)
    row.side("onnxruntime")(_onnxruntime)
    row.side("torch")(_torch)
    row.side("torch.compile", peer="torch", on_request=True)(_torch_compile)


def _gluonish(sizes: Sizes) -> Side:
    net, images = _network(sizes)
    net.hybridize()
    return Side(lambda: net(images))


def _onnxruntime(sizes: Sizes) -> Side:
    from benchmarks.onnx_model import operators_of
    from benchmarks.onnx_session import session

    net, images = _network(sizes)
    operators, constants, output = operators_of(net, images)
    run, given = session(operators, {"x": images.shape}, constants, output), {"x": images.asnumpy()}
    return Side(lambda: run(given))


def _torch(sizes: Sizes) -> Side:
    return _predicting(sizes, lambda net: net)


def _torch_compile(sizes: Sizes) -> Side:
    import torch

    return _predicting(sizes, torch.compile)


def _predicting(sizes: Sizes, compiled: Callable[[Any], Any]) -> Side:
    import torch

    from benchmarks.torch_twin import twin

    net, images = _network(sizes)
    run, given = compiled(twin(net).eval()), torch.from_numpy(images.asnumpy())
    return Side(lambda: run(given), scope=torch.inference_mode)


_predict("resnet50-b1", "ResNet-50", "resnet50_v1b", 1, 0.87)
_predict("resnet50-b8", "ResNet-50", "resnet50_v1b", 8, 0.87)
_predict("mobilenetv2-b1", "MobileNetV2", "mobilenet_v2_1_0", 1, 0.9)
_predict("inceptionv3-b1", "Inception v3", "inception_v3", 1, None, smallest=75)

# --- a training step ---
Step = Callable[[], Any]


def _trained(make_step: Callable[[], Step]) -> Side:
    def results() -> list[Any]:
        step = make_step()
        return [step() for _ in range(STEPS)]

    return Side(make_step(), results)


def _gluonish_step(sizes: Sizes) -> Side:
    import gluonish as gl

    labels = gl.nd.array(classes(49, sizes["batch"], sizes["classes"]))

    def make_step() -> Step:
        net, images = _network(sizes)
        criterion = gl.loss.SoftmaxCrossEntropyLoss()
        net.hybridize()
        criterion.hybridize()
        trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE, "momentum": MOMENTUM})

        def step() -> Any:
            with gl.autograd.record():
                losses = criterion(net(images), labels)
            losses.backward()
            trainer.step(sizes["batch"])
            return losses

        return gl.hybridize(step) if sizes["whole"] else step

    return _trained(make_step)


def _torch_step(sizes: Sizes) -> Side:
    return _trained(lambda: _step_of_torch(sizes, lambda net: net))


def _torch_compile_step(sizes: Sizes) -> Side:
    import torch

    return _trained(lambda: _step_of_torch(sizes, torch.compile))


def _step_of_torch(sizes: Sizes, compiled: Callable[[Any], Any]) -> Step:
    import torch

    from benchmarks.torch_twin import twin

    net, images = _network(sizes)
    given, labels = torch.from_numpy(images.asnumpy()), torch.from_numpy(classes(49, sizes["batch"], sizes["classes"]))
    module = twin(net).train()
    optimizer = torch.optim.SGD(module.parameters(), RATE, momentum=MOMENTUM)
    run, criterion = compiled(module), torch.nn.CrossEntropyLoss(reduction="none")

    def step() -> Any:
        optimizer.zero_grad()
        losses = criterion(run(given), labels)
        losses.mean().backward()
        optimizer.step()
        return losses

    return step


for whole in (False, True):
    row = Row(
        "resnet18-whole-step" if whole else "resnet18-step",
        f"ResNet-18, batch 32 of 3x64x64, training step with SGD and momentum{', compiled whole' if whole else ''}",
        {"model": "resnet18_v1", "batch": 32, "size": 64, "classes": 1000, "multiplier": 1.0, "whole": whole},
        {"batch": 4, "classes": 7, "multiplier": 1 / 8},
        (Bar("torch", 0.65), Bar("torch.compile", 0.65), BUSY),
        lambda sizes: _flops(sizes, 3),
        tolerance=2e-3,
        group="models",
    )
    row.side("gluonish")(_gluonish_step)
    row.side("torch")(_torch_step)
    row.side("torch.compile", peer="torch", on_request=True)(_torch_compile_step)
