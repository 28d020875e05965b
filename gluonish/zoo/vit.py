"""ViT: images cut into patches, each a token of a transformer."""

from __future__ import annotations

from gluonish import nd
from gluonish.block import nn
from gluonish.block.nn.layer import positive
from gluonish.block.parameter import Parameter
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.zoo.network import Network
from gluonish.zoo.transformer import TransformerCell


class PatchTransformer(nn.HybridBlock):
    """A vector for each image: patches become tokens, one token more stands before them, and its vector is the result.

    Shapes: (N, 3, image, image) -> (N, units); token (1, 1, units), position (1, 1 + patches, units).
    """

    def __init__(self, image: int, patch: int, units: int, layers: int, num_heads: int, hidden: int) -> None:
        self.image = positive("PatchTransformer", "image", image, patch)
        count = 1 + (image // patch) ** 2
        self.patch = nn.Conv2D(units, patch, patch, in_channels=3)
        self.token = Parameter("token", shape=(1, 1, units), init="zeros")
        self.position = Parameter("position", shape=(1, count, units))
        self.cells = nn.HybridSequential(
            *(TransformerCell(units, num_heads, hidden, True, epsilon=1e-6) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(epsilon=1e-6, in_channels=units)

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        if x.ndim != 4 or x.shape[2] != self.image or x.shape[3] != self.image:
            raise ValueError(
                f"PatchTransformer has positions for images of {self.image}x{self.image}, got {shape_text(x.shape)} "
                f"({user_line()})"
            )
        x = self.patch(x)  # (N, units, rows, columns)
        x = x.reshape((x.shape[0], x.shape[1], -1)).transpose((0, 2, 1))
        first = nd.broadcast_to(self.token, (x.shape[0], 1, x.shape[2]))
        x = nd.concat([first, x], axis=1) + self.position
        return self.norm(self.cells(x)[:, 0])


class VisionTransformer(Network):
    """A transformer over the patches of an image. image: its height and width. hidden: 4 * units unless given.

    Shapes: (N, 3, image, image) -> (N, classes); features alone (N, units).
    Source: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021.
    """

    def __init__(
        self,
        image: int = 224,
        patch: int = 16,
        units: int = 384,
        layers: int = 12,
        num_heads: int = 6,
        hidden: int = 0,
        classes: int = 1000,
    ) -> None:
        self.features = PatchTransformer(image, patch, units, layers, num_heads, hidden or 4 * units)
        self.output = nn.Dense(classes, in_units=units)


def vit_small_patch16_224(classes: int = 1000, **options: int) -> VisionTransformer:
    """ViT-S/16 for images of 224x224: 22 million weights. options: those of `VisionTransformer`. No pretrained weights
    are loaded."""
    return VisionTransformer(classes=classes, **options)
