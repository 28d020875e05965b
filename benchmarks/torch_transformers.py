"""Transformers of gluonish's zoo as modules of torch, as torch's users write them, with the same weights.

Attention is `scaled_dot_product_attention`; where transformers and timm have one product for queries, keys and values
(GPT-2 and ViT), so have these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def tensor(array: Any) -> torch.Tensor:
    """A gluonish array as a tensor of its own."""
    return torch.from_numpy(array.asnumpy())


def _linear(*layers: Any) -> nn.Linear:
    """Dense layers of one input, side by side in one."""
    weights = torch.cat([tensor(layer.weight) for layer in layers])
    made = nn.Linear(weights.shape[1], weights.shape[0])
    with torch.no_grad():
        made.weight.copy_(weights)
        made.bias.copy_(torch.cat([tensor(layer.bias) for layer in layers]))
    return made


def _norm(block: Any) -> nn.LayerNorm:
    made = nn.LayerNorm(block.gamma.shape[0], block.epsilon)
    with torch.no_grad():
        made.weight.copy_(tensor(block.gamma))
        made.bias.copy_(tensor(block.beta))
    return made


def _embedding(block: Any) -> nn.Embedding:
    return nn.Embedding.from_pretrained(tensor(block.weight), freeze=False)


class Cell(nn.Module):
    """A `zoo.TransformerCell`. fused: one product for queries, keys and values."""

    def __init__(self, block: Any, fused: bool) -> None:
        super().__init__()
        own = block.attention
        self.heads, self.causal, self.pre_norm = own.num_heads, own.causal, block.pre_norm
        parts = (own.query, own.key, own.value)
        self.parts = nn.ModuleList([_linear(*parts)] if fused else [_linear(part) for part in parts])
        self.output, self.norms = (
            _linear(own.output),
            nn.ModuleList([_norm(block.attention_norm), _norm(block.ffn_norm)]),
        )
        self.wide, self.narrow = (_linear(block.ffn[i]) for i in range(2))
        self.approximate = "tanh" if block.ffn[0].activation == "gelu_tanh" else "none"

    def attend(self, x: torch.Tensor, cache: Any, position: int) -> torch.Tensor:
        """The first part."""
        made = self.parts[0](x).chunk(3, -1) if len(self.parts) == 1 else [part(x) for part in self.parts]
        query, key, value = (m.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for m in made)
        if cache is not None:
            end = position + x.shape[1]
            for held, new in zip(cache, (key, value)):
                held[:, :, position:end] = new
            key, value = (held[:, :, :end] for held in cache)
        causal = self.causal and x.shape[1] > 1
        out = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.output(out.transpose(1, 2).reshape(x.shape))

    def forward(self, x: torch.Tensor, cache: Any = None, position: int = 0) -> torch.Tensor:
        """See the class."""
        if self.pre_norm:
            x = x + self.attend(self.norms[0](x), cache, position)
            return x + self.feed(self.norms[1](x))
        x = self.norms[0](x + self.attend(x, cache, position))
        return self.norms[1](x + self.feed(x))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        """The second part."""
        return self.narrow(F.gelu(self.wide(x), approximate=self.approximate))


class Bert(nn.Module):
    """A `zoo.Bert`, or a `zoo.BertClassifier` around it."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        inner = getattr(block, "features", block)
        self.word, self.position, self.kind = (_embedding(e) for e in (inner.word, inner.position, inner.kind))
        self.norm = _norm(inner.norm)
        self.cells = nn.ModuleList([Cell(cell, False) for cell in inner.cells])
        classifier = inner is not block
        self.ends = nn.ModuleList([_linear(block.pooler), _linear(block.output)] if classifier else [])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `zoo.Bert`."""
        kinds = torch.zeros_like(tokens)
        x = self.norm(self.word(tokens) + self.position(torch.arange(tokens.shape[1])) + self.kind(kinds))
        for cell in self.cells:
            x = cell(x)
        return self.ends[1](torch.tanh(self.ends[0](x[:, 0]))) if self.ends else x


class GPT2(nn.Module):
    """A `zoo.GPT2`; with a cache it gives the scores after the last token."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.word, self.position, self.norm = _embedding(block.word), _embedding(block.position), _norm(block.norm)
        self.cells = nn.ModuleList([Cell(cell, True) for cell in block.cells])

    def forward(self, tokens: torch.Tensor, cache: Any = None, position: int = 0) -> torch.Tensor:
        """See `zoo.GPT2`; position is a number here."""
        x = self.word(tokens) + self.position(torch.arange(position, position + tokens.shape[1]))
        for i, cell in enumerate(self.cells):
            x = cell(x, None if cache is None else cache[i], position)
        return F.linear(self.norm(x if cache is None else x[:, -1:]), self.word.weight)


class VisionTransformer(nn.Module):
    """A `zoo.VisionTransformer`."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        inner = block.features
        weight = tensor(inner.patch.weight)
        self.patch = nn.Conv2d(3, weight.shape[0], weight.shape[2:], weight.shape[2:])
        self.token, self.position = nn.Parameter(tensor(inner.token)), nn.Parameter(tensor(inner.position))
        self.cells = nn.Sequential(*(Cell(cell, True) for cell in inner.cells))
        self.norm, self.output = _norm(inner.norm), _linear(block.output)
        with torch.no_grad():
            self.patch.weight.copy_(weight)
            self.patch.bias.copy_(tensor(inner.patch.bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.output(self.norm(self.cells(x))[:, 0])


_MAKERS = {"Bert": Bert, "BertClassifier": Bert, "GPT2": GPT2, "VisionTransformer": VisionTransformer}


def twin(block: Any) -> nn.Module:
    """The module that computes what the Block does, in predict mode or without dropout."""
    return _MAKERS[type(block).__name__](block)
