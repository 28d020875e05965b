"""zoo: well-known networks, written with Gluon's layers and names.

Every classifier has `features`, which gives a vector for each input, and `output`, which makes scores of classes from
it. There are no pretrained weights to download yet; `weights_for` gives those of other libraries' files our names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from gluonish.block.hybrid_block import HybridBlock
from gluonish.nd.errors import user_line
from gluonish.zoo.bert import Bert, BertClassifier, SentenceEncoder, bert, minilm_l6_384
from gluonish.zoo.gpt2 import GPT2, gpt2
from gluonish.zoo.inception import Inception3, inception_v3
from gluonish.zoo.language import LSTMLanguageModel, lstm_lm
from gluonish.zoo.mobilenet import MobileNetV2, mobilenet_v2_1_0
from gluonish.zoo.resnet import ResNetV1, resnet18_v1, resnet50_v1b
from gluonish.zoo.transformer import TransformerCell
from gluonish.zoo.vit import VisionTransformer, vit_small_patch16_224
from gluonish.zoo.weights import weights_for

MODELS: dict[str, Callable[..., HybridBlock]] = {
    "bert": bert,
    "gpt2": gpt2,
    "inception_v3": inception_v3,
    "minilm_l6_384": minilm_l6_384,
    "lstm_lm": lstm_lm,
    "mobilenet_v2_1_0": mobilenet_v2_1_0,
    "resnet18_v1": resnet18_v1,
    "resnet50_v1b": resnet50_v1b,
    "vit_small_patch16_224": vit_small_patch16_224,
}


def get_model(name: str, classes: int | None = None, pretrained: bool = False, **options: Any) -> HybridBlock:
    """A network by its name, with its initial weights still to be made: `net.initialize()`.

    name: one of `zoo.MODELS`. classes: how many scores it gives, 1000 of an image
    unless said; with it, a BERT is a classifier. options: those of the function of that name.
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
    return make(**options) if classes is None else make(classes=classes, **options)


__all__ = [
    "Bert",
    "BertClassifier",
    "GPT2",
    "Inception3",
    "MODELS",
    "LSTMLanguageModel",
    "MobileNetV2",
    "ResNetV1",
    "SentenceEncoder",
    "TransformerCell",
    "VisionTransformer",
    "bert",
    "get_model",
    "gpt2",
    "inception_v3",
    "minilm_l6_384",
    "lstm_lm",
    "mobilenet_v2_1_0",
    "resnet18_v1",
    "resnet50_v1b",
    "vit_small_patch16_224",
    "weights_for",
]
