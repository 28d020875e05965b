"""Makes the fixtures of test_transformers.py: tiny models of transformers and timm, with inputs and results.

    pip install transformers timm && python tests/zoo/make_fixtures.py

Each file has the model's state under its own names, and beside it "given.*" and "result.*". The numbers are random, so
that no two weights, biases or norms could be exchanged unseen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gluonish import nd

FOLDER = Path(__file__).parent / "fixtures"


def randomized(model: Any) -> Any:
    """The model in predict mode with random numbers everywhere, factors around 1."""
    for parameter in model.parameters():
        values = torch.rand_like(parameter.data) - 0.5
        flat = parameter.ndim == 1 and bool((parameter.data == 1).all())
        parameter.data = 1 + values if flat else values
    return model.eval()


def write(name: str, model: Any, given: dict[str, Any], result: dict[str, Any]) -> None:
    """One file; what the model holds twice is in it twice."""
    arrays = dict(model.state_dict())
    arrays |= {f"given.{k}": v for k, v in given.items()} | {f"result.{k}": v for k, v in result.items()}
    nd.save(FOLDER / f"{name}.safetensors", {k: nd.array(v.detach().numpy()) for k, v in arrays.items()})


def bert() -> None:
    """A classifier: its state has names with and without the prefix."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=23, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=9, num_labels=4,
    )  # fmt: skip
    model = randomized(BertForSequenceClassification(config))
    tokens, kinds = torch.randint(0, 23, (2, 7)), torch.randint(0, 2, (2, 7))
    mask = torch.arange(7) < torch.tensor([[5], [7]])
    given = {"input_ids": tokens, "token_type_ids": kinds, "attention_mask": mask}
    states = model.bert(**given).last_hidden_state
    write("bert", model, {"tokens": tokens, "kinds": kinds, "mask": mask},
          {"states": states, "scores": model(**given).logits})  # fmt: skip


def gpt2() -> None:
    """A language model, with its causal masks among the state as older files have them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = randomized(GPT2LMHeadModel(GPT2Config(vocab_size=23, n_embd=12, n_layer=2, n_head=3, n_positions=9)))
    model.transformer.h[0].attn.register_buffer("bias", torch.ones(1, 1, 9, 9).tril())
    tokens = torch.randint(0, 23, (2, 9))
    write("gpt2", model, {"tokens": tokens}, {"scores": model(tokens).logits})


def vit() -> None:
    """A classifier of images of 12x12 in patches of 4x4."""
    from timm.models.vision_transformer import VisionTransformer

    model = randomized(
        VisionTransformer(img_size=12, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=4, mlp_ratio=2)
    )
    images = torch.rand(2, 3, 12, 12) - 0.5
    write("vit", model, {"images": images}, {"scores": model(images)})


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        bert()
        gpt2()
        vit()
