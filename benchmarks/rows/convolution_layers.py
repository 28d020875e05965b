"""Every distinct convolution of some well-known networks, forward at batch 1 and 8, and their gradients at batch 8.

gluonish gets images in channels-last memory, which is what a layer inside a network gets; the others get what they like
best. Weights are fixed in the forward rows. Operations are those of the direct sum.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.onnx_session import session
from benchmarks.row import BUSY, Bar, Row, Side, Sizes, numbers
from benchmarks.rows.contractions import peak

FORWARD, GRADIENT, DEPTHWISE = 0.85, 0.75, 1 / 1.2  # of the peak; of onnxruntime's time


class Layer(NamedTuple):
    """A square image's size, channels in and out, a square window and its stride."""

    size: int
    cin: int
    cout: int
    window: int
    stride: int


RESNET50 = (
    Layer(224, 3, 64, 7, 2), Layer(56, 64, 64, 1, 1), Layer(56, 64, 64, 3, 1), Layer(56, 64, 256, 1, 1),
    Layer(56, 256, 64, 1, 1), Layer(56, 256, 128, 1, 1), Layer(56, 128, 128, 3, 2), Layer(28, 128, 512, 1, 1),
    Layer(56, 256, 512, 1, 2), Layer(28, 512, 128, 1, 1), Layer(28, 128, 128, 3, 1), Layer(28, 512, 256, 1, 1),
    Layer(28, 256, 256, 3, 2), Layer(14, 256, 1024, 1, 1), Layer(28, 512, 1024, 1, 2), Layer(14, 1024, 256, 1, 1),
    Layer(14, 256, 256, 3, 1), Layer(14, 1024, 512, 1, 1), Layer(14, 512, 512, 3, 2), Layer(7, 512, 2048, 1, 1),
    Layer(14, 1024, 2048, 1, 2), Layer(7, 2048, 512, 1, 1), Layer(7, 512, 512, 3, 1),
)  # fmt: skip
RESNET18 = (
    Layer(56, 64, 128, 3, 2), Layer(56, 64, 128, 1, 2), Layer(28, 128, 256, 3, 2), Layer(28, 128, 256, 1, 2),
    Layer(14, 256, 512, 3, 2), Layer(14, 256, 512, 1, 2),
)  # fmt: skip
VGG16 = (
    Layer(224, 3, 64, 3, 1), Layer(224, 64, 64, 3, 1), Layer(112, 64, 128, 3, 1), Layer(112, 128, 128, 3, 1),
    Layer(56, 128, 256, 3, 1), Layer(56, 256, 256, 3, 1), Layer(28, 256, 512, 3, 1), Layer(28, 512, 512, 3, 1),
    Layer(14, 512, 512, 3, 1),
)  # fmt: skip
MOBILENET_V2 = (
    Layer(112, 32, 32, 3, 1), Layer(112, 96, 96, 3, 2), Layer(56, 144, 144, 3, 1), Layer(56, 144, 144, 3, 2),
    Layer(28, 192, 192, 3, 1), Layer(28, 192, 192, 3, 2), Layer(14, 384, 384, 3, 1), Layer(14, 576, 576, 3, 1),
    Layer(14, 576, 576, 3, 2), Layer(7, 960, 960, 3, 1),
)  # fmt: skip


def _sizes(layer: Layer, batch: int, groups: int) -> Sizes:
    return {**layer._asdict(), "batch": batch, "groups": groups}


def _out(sizes: Sizes) -> int:
    return (sizes["size"] + 2 * (sizes["window"] // 2) - sizes["window"]) // sizes["stride"] + 1


def _flops(sizes: Sizes) -> float:
    pixels = sizes["batch"] * _out(sizes) ** 2
    return 2.0 * pixels * sizes["window"] ** 2 * sizes["cin"] // sizes["groups"] * sizes["cout"]


def _arrays(sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, weight and the output's gradient, as PyTorch orders them."""
    n, s, o, k = sizes["batch"], sizes["size"], _out(sizes), sizes["window"]
    weight = numbers(21, sizes["cout"], sizes["cin"] // sizes["groups"], k, k, scale=0.1)
    return numbers(20, n, sizes["cin"], s, s), weight, numbers(22, n, sizes["cout"], o, o)


def _declare(network: str, layers: tuple[Layer, ...], depthwise: bool = False) -> None:
    for number, layer in enumerate(layers):
        name = f"{network}-{number + 1:02}"
        about = f"{layer.window}x{layer.window} convolution {layer.cin} -> {layer.cout} of {layer.size}x{layer.size}"
        about += f", stride {layer.stride}{', depthwise' if depthwise else ''}"
        tiny = {"size": 6, "cin": 6, "cout": 6 if depthwise else 5, "batch": 2, "groups": 6 if depthwise else 1}
        for batch in (1, 8):
            bars = (Bar("onnxruntime", DEPTHWISE, together=f"the depthwise layers, batch {batch}, in sum"),)
            if not depthwise:
                bars = (Bar("onnxruntime", 1.0), Bar("peak", FORWARD, "rate"), BUSY)
            row = Row(
                f"conv-{name}-b{batch}", f"{about}, batch {batch}", _sizes(layer, batch, layer.cin if depthwise else 1),
                tiny, bars, _flops,
                group="kernels", example=number == 0 and batch == 1,
            )  # fmt: skip
            row.side("peak", peer="gluonish")(peak)
            row.side("gluonish")(_gluonish)
            row.side("onnxruntime")(_onnxruntime)
            row.side("torch, NHWC", peer="torch")(_torch)
        if depthwise or layer.cin < 16:
            continue
        row = Row(
            f"conv-grad-{name}", f"both gradients of the {about}, batch 8", _sizes(layer, 8, 1), tiny,
            (Bar("peak", GRADIENT, "rate", "the gradients of convolutions, on average"),),
            lambda sizes: 2 * _flops(sizes), group="kernels", example=network == "resnet50" and number == 1,
        )  # fmt: skip
        row.side("peak", peer="gluonish")(peak)
        row.side("gluonish")(_gluonish_gradients)
        row.side("torch, NHWC", peer="torch")(_torch_gradients)


def _gluonish(sizes: Sizes) -> Side:
    import gluonish as gl
    from gluonish import nd

    x, weight, _ = _arrays(sizes)
    image, weight = nd.array(np.ascontiguousarray(x.transpose(0, 2, 3, 1))), nd.array(weight)
    options = {"stride": sizes["stride"], "pad": sizes["window"] // 2, "groups": sizes["groups"]}

    @gl.hybridize
    def forward(image: Any) -> Any:
        out = nd.convolution(nd.permute_dims(image, (0, 3, 1, 2)), weight, **options)
        return nd.permute_dims(out, (0, 2, 3, 1))

    return Side(lambda: forward(image), lambda: forward(image).asnumpy().transpose(0, 3, 1, 2))


def _gluonish_gradients(sizes: Sizes) -> Side:
    import gluonish as gl
    from gluonish import autograd, nd

    x, weight, flow = _arrays(sizes)
    held = nd.array(weight)
    image, flow = (nd.array(np.ascontiguousarray(a.transpose(0, 2, 3, 1))) for a in (x, flow))
    image.attach_grad()
    held.attach_grad()

    @gl.hybridize
    def gradients(image: Any, flow: Any) -> Any:
        with autograd.record():
            x = nd.permute_dims(image, (0, 3, 1, 2))
            out = nd.convolution(x, held, stride=sizes["stride"], pad=sizes["window"] // 2)
        given = nd.permute_dims(flow, (0, 3, 1, 2))
        of_x, of_weight = autograd.grad(out, [image, held], given)
        return of_x, nd.permute_dims(of_weight, (2, 3, 1, 0))

    def results() -> Any:
        of_x, of_weight = gradients(image, flow)
        return of_x.asnumpy().transpose(0, 3, 1, 2), of_weight.asnumpy().transpose(3, 2, 0, 1)

    return Side(lambda: gradients(image, flow), results)


def _onnxruntime(sizes: Sizes) -> Side:
    x, weight, _ = _arrays(sizes)
    pad, stride = [sizes["window"] // 2] * 4, [sizes["stride"]] * 2
    operators = [("Conv", ["x", "w"], "y", {"pads": pad, "strides": stride, "group": sizes["groups"]})]
    run = session(operators, {"x": x.shape}, {"w": weight}, "y")
    return Side(lambda: run({"x": x}))


def _torch_arrays(sizes: Sizes) -> list[Any]:
    import torch

    return [torch.from_numpy(a).to(memory_format=torch.channels_last) for a in _arrays(sizes)]


def _torch(sizes: Sizes) -> Side:
    import torch

    x, weight, _ = _torch_arrays(sizes)
    options = {"stride": sizes["stride"], "padding": sizes["window"] // 2, "groups": sizes["groups"]}
    return Side(lambda: torch.nn.functional.conv2d(x, weight, **options), scope=torch.inference_mode)


def _torch_gradients(sizes: Sizes) -> Side:
    import torch

    x, weight, flow = _torch_arrays(sizes)
    stride, pad = [sizes["stride"]] * 2, [sizes["window"] // 2] * 2
    backward, mask = torch.ops.aten.convolution_backward, [True, True, False]

    def gradients() -> Any:
        return backward(flow, x, weight, None, stride, pad, [1, 1], False, [0, 0], 1, mask)[:2]

    return Side(gradients, scope=torch.inference_mode)


_declare("resnet50", RESNET50)
_declare("resnet18", RESNET18)
_declare("vgg16", VGG16)
_declare("mobilenetv2", MOBILENET_V2, depthwise=True)
