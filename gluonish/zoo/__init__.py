"""zoo: well-known networks, written with Gluon's layers and names.

Every network has `features`, which gives a vector for each image, and `output`, which makes scores of classes from it.
There are no pretrained weights to download yet.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from gluonish.block.hybrid_block import HybridBlock
from gluonish.nd.errors import user_line
from gluonish.zoo.inception import Inception3, inception_v3
from gluonish.zoo.mobilenet import MobileNetV2, mobilenet_v2_1_0
from gluonish.zoo.resnet import ResNetV1, resnet18_v1, resnet50_v1b

MODELS: dict[str, Callable[..., HybridBlock]] = {
    "inception_v3": inception_v3,
    "mobilenet_v2_1_0": mobilenet_v2_1_0,
    "resnet18_v1": resnet18_v1,
    "resnet50_v1b": resnet50_v1b,
}


def get_model(name: str, classes: int = 1000, pretrained: bool = False, **options: Any) -> HybridBlock:
    """A network by its name, with its initial weights still to be made: `net.initialize()`.

    name: one of `zoo.MODELS`. classes: how many scores it gives. options: those of the function of that name.
    pretrained: must be False; there are no weights to download yet. `net.load_parameters` reads weights from a file.

    >>> from gluonish import nd, zoo
    >>> net = zoo.get_model("resnet18_v1", classes=10, multiplier=0.125); net.initialize()
    >>> net(nd.zeros((2, 3, 32, 32))).shape
    (2, 10)

    Raises: ValueError for an unknown name, with the nearest there are; NotImplementedError for pretrained=True.
    """
    make = MODELS.get(name.lower()) if isinstance(name, str) else None
    if make is None:
        near = difflib.get_close_matches(str(name).lower(), MODELS, 3, 0.4) or sorted(MODELS)
        raise ValueError(f"zoo has no model {name!r}; the nearest: {', '.join(near)} ({user_line()})")
    if pretrained:
        raise NotImplementedError(
            f"zoo.get_model({name!r}): there are no pretrained weights to download yet; leave pretrained out and read "
            f"a file of weights by net.load_parameters(path) ({user_line()})"
        )
    return make(classes=classes, **options)


__all__ = [
    "MODELS",
    "Inception3",
    "MobileNetV2",
    "ResNetV1",
    "get_model",
    "inception_v3",
    "mobilenet_v2_1_0",
    "resnet18_v1",
    "resnet50_v1b",
]
