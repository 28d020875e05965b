"""Transformers of the zoo: predictions against onnxruntime, a training step and decoding against torch.

All sides have the same weights. onnxruntime gets the graph that gluonish traces (`onnx_model`), torch modules of its
own (`torch_transformers`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.row import BUSY, Bar, Row, Side, Sizes, classes, numbers

STEPS = 3  # whose losses are compared
RATE = 1e-4
SMALL = {"units": 12, "layers": 2, "num_heads": 3}


def network(sizes: Sizes) -> Any:
    """The network with its weights: as large as initializers make them, norms that are not 1 and 0."""
    from gluonish import zoo

    net = zoo.get_model(sizes["model"], **sizes["options"])
    net.initialize("zeros")
    for number, (name, parameter) in enumerate(net.collect_params().items()):
        kind, shape = name.rsplit(".", 1)[-1], parameter.shape
        value = numbers(70 + number, *shape)
        if kind == "gamma":
            value = 1 + value / 4
        elif len(shape) > 1 and not name.startswith(("word", "position", "kind", "features.word", "features.position")):
            value *= (3 / (float(parameter.size) / shape[0])) ** 0.5
        else:
            value /= 10
        parameter.set_data(value)
    return net


def given(sizes: Sizes) -> Any:
    """Tokens or images."""
    if "image" in sizes["options"] or sizes["model"].startswith("vit"):
        size = sizes["options"].get("image", 224)
        return numbers(60, sizes["batch"], 3, size, size)
    count = sizes["batch"] * sizes["length"]
    return classes(60, count, sizes["options"].get("vocabulary", 30522)).reshape(sizes["batch"], sizes["length"])


def _multiply_adds(sizes: Sizes) -> float:
    """Of the products of cells, which are nearly all there is."""
    wide = sizes["options"].get("units", 384)
    layers = sizes["options"].get("layers", 12 if sizes["model"].startswith("vit") else 6)
    return float(sizes["batch"] * layers * sizes["length"] * (12 * wide * wide + 2 * sizes["length"] * wide))


# --- predictions ---
def _predict(name: str, about: str, model: str, batch: int, length: int, tiny: Sizes, *bars: Bar) -> None:
    row = Row(
        name, f"{about}, batch {batch}, predict", {"model": model, "batch": batch, "length": length, "options": {}},
        {"batch": min(batch, 2), **tiny}, bars, lambda sizes: 2.0 * _multiply_adds(sizes), group="models",
    )  # fmt: skip
    row.side("gluonish")(_gluonish)
    row.side("onnxruntime")(_onnxruntime)
    row.side("torch")(_torch)
    row.side("torch.compile", peer="torch", on_request=True)(_torch_compile)


def _gluonish(sizes: Sizes) -> Side:
    from gluonish import nd

    net, x = network(sizes), nd.array(given(sizes))
    net.hybridize()
    return Side(lambda: net(x))


def _onnxruntime(sizes: Sizes) -> Side:
    from benchmarks.onnx_model import operators_of
    from benchmarks.onnx_session import session
    from gluonish import nd

    net, x = network(sizes), given(sizes)
    net.hybridize()
    operators, constants, output = operators_of(net, nd.array(x))
    run = session(operators, {"x": x.shape}, constants, output, ["x"] if x.dtype.kind == "i" else [])
    return Side(lambda: run({"x": x}))


def _torch(sizes: Sizes) -> Side:
    return _predicting(sizes, lambda net: net)


def _torch_compile(sizes: Sizes) -> Side:
    import torch

    return _predicting(sizes, torch.compile)


def _predicting(sizes: Sizes, compiled: Callable[[Any], Any]) -> Side:
    import torch

    from benchmarks.torch_transformers import twin

    run, x = compiled(twin(network(sizes)).eval()), torch.from_numpy(given(sizes))
    return Side(lambda: run(x), scope=torch.inference_mode)


_TEXT: Sizes = {"length": 7, "options": {**SMALL, "vocabulary": 23, "length": 9}}
_IMAGE: Sizes = {"length": 10, "options": {**SMALL, "image": 12, "patch": 4, "classes": 5}}
_FAST = Bar("onnxruntime", 0.9)
_predict("minilm-b1", "MiniLM (6x384) of 128 tokens", "minilm_l6_384", 1, 128, _TEXT, _FAST, BUSY)
_predict("minilm-b8", "MiniLM (6x384) of 128 tokens", "minilm_l6_384", 8, 128, _TEXT, _FAST, BUSY)
_predict("vit-b1", "ViT-S/16 of 3x224x224", "vit_small_patch16_224", 1, 197, _IMAGE, _FAST, BUSY)

# --- a training step ---
STEP = Row(
    "minilm-step",
    "MiniLM classifier, batch 8 of 128 tokens, training step with Adam",
    {"model": "minilm_l6_384", "batch": 8, "length": 128, "options": {"classes": 2, "dropout": 0.0}},
    {"batch": 2, "length": 7, "options": {**_TEXT["options"], "classes": 2, "dropout": 0.0}},
    (Bar("torch", 0.5), BUSY),
    lambda sizes: 6.0 * _multiply_adds(sizes),
    tolerance=2e-3,
    group="models",
)
Step = Callable[[], Any]


def _trained(make_step: Callable[[], Step]) -> Side:
    def results() -> list[Any]:
        step = make_step()
        return [step() for _ in range(STEPS)]

    return Side(make_step(), results)


@STEP.side("gluonish")
def _gluonish_step(sizes: Sizes) -> Side:
    import gluonish as gl

    tokens, labels = gl.nd.array(given(sizes)), gl.nd.array(classes(59, sizes["batch"], 2))

    def make_step() -> Step:
        net, criterion = network(sizes), gl.loss.SoftmaxCrossEntropyLoss()
        net.hybridize()
        criterion.hybridize()
        trainer = gl.Trainer(net.collect_params(), "adam", {"learning_rate": RATE})

        def step() -> Any:
            with gl.autograd.record():
                losses = criterion(net(tokens), labels)
            losses.backward()
            trainer.step(sizes["batch"])
            return losses

        return step

    return _trained(make_step)


@STEP.side("torch")
def _torch_step(sizes: Sizes) -> Side:
    return _trained(lambda: _step_of_torch(sizes, lambda net: net))


@STEP.side("torch.compile", peer="torch", on_request=True)
def _torch_compile_step(sizes: Sizes) -> Side:
    import torch

    return _trained(lambda: _step_of_torch(sizes, torch.compile))


def _step_of_torch(sizes: Sizes, compiled: Callable[[Any], Any]) -> Step:
    import torch

    from benchmarks.torch_transformers import twin

    tokens, labels = torch.from_numpy(given(sizes)), torch.from_numpy(classes(59, sizes["batch"], 2))
    module = twin(network(sizes)).train()
    optimizer = torch.optim.Adam(module.parameters(), RATE, fused=True)
    run, criterion = compiled(module), torch.nn.CrossEntropyLoss(reduction="none")

    def step() -> Any:
        optimizer.zero_grad()
        losses = criterion(run(tokens), labels)
        losses.mean().backward()
        optimizer.step()
        return losses

    return step


# --- decoding ---
def _decoding(name: str, about: str, batch: int, *bars: Bar) -> None:
    row = Row(
        name, f"GPT-2 (12x768) decoding, {about}: 16 tokens after 128, with a cache",
        {"model": "gpt2", "batch": batch, "length": 128, "count": 16, "options": {}},
        {"length": 4, "count": 3, "options": {**SMALL, "vocabulary": 23, "length": 9}}, bars, group="models",
    )  # fmt: skip
    row.side("gluonish")(_gluonish_tokens)
    row.side("torch")(_torch_tokens)


def _gluonish_tokens(sizes: Sizes) -> Side:
    from gluonish import nd

    net, tokens = network(sizes), nd.array(given(sizes))
    net.hybridize()
    begun, end = sizes["length"], sizes["length"] + sizes["count"]
    cache = net.new_cache(sizes["batch"], end)
    first = net(tokens, cache, nd.array([0])).argmax(-1).astype("int64")
    places = [nd.array([p]) for p in range(begun, end)]

    def write() -> Any:
        token, scores = first, None
        for place in places:
            scores = net(token, cache, place)
            token = scores.argmax(-1)
        return scores

    return Side(write)


def _torch_tokens(sizes: Sizes) -> Side:
    import torch

    from benchmarks.torch_transformers import twin

    net, tokens = network(sizes), torch.from_numpy(given(sizes))
    begun, end = sizes["length"], sizes["length"] + sizes["count"]
    cache = [tuple(torch.zeros(a.shape) for a in pair) for pair in net.new_cache(sizes["batch"], end)]
    run = twin(net).eval()
    with torch.inference_mode():
        first = run(tokens, cache, 0).argmax(-1)

    def write() -> Any:
        token, scores = first, None
        for place in range(begun, end):
            scores = run(token, cache, place)
            token = scores.argmax(-1)
        return scores

    return Side(write, scope=torch.inference_mode)


_decoding("gpt2-b1", "one text", 1, Bar("torch", 1 / 1.3), BUSY)
_decoding("gpt2-b8", "8 texts", 8, Bar("torch", 1 / 1.3))
