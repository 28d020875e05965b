"""Layers that change the size of images: upsampling, padding by reflection.

Deliberately not here: transposed convolutions (`convolution.py`), pooling (`pooling.py`).
"""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.hybrid_block import HybridBlock
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


class UpSampling(HybridBlock):
    """Images `scale` times as large, or of a given size.

    scale: a number, or one per spatial axis; size: the same in pixels, instead. sample_type: "nearest" or "bilinear";
    align_corners: see `nd.resize`.

    Shapes: (N, C, H, W) -> (N, C, scale * H, scale * W).

    >>> from gluonish import nd, nn
    >>> nn.UpSampling(2)(nd.array([[[[1.0, 2.0]]]])).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]

    Raises: ValueError unless exactly one of scale and size is given, and for an unknown sample type.
    """

    def __init__(
        self,
        scale: Any = None,
        sample_type: str = "nearest",
        *,
        size: Any = None,
        align_corners: bool = False,
        layout: str = "NCHW",
    ) -> None:
        if (scale is None) == (size is None):
            raise ValueError(f"UpSampling: give either scale or size, got {scale!r} and {size!r} ({user_line()})")
        if sample_type not in ("nearest", "nearest-exact", "linear", "bilinear", "trilinear"):
            raise ValueError(
                f"UpSampling: sample_type must be 'nearest' or 'bilinear', got {sample_type!r} ({user_line()})"
            )
        self.scale, self.size, self.layout = scale, size, layout
        self.sample_type, self.align_corners = sample_type, align_corners

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        mode, align = self.sample_type, self.align_corners
        return nd.resize(x, self.size, scale=self.scale, mode=mode, align_corners=align, layout=self.layout)

    def _describe(self) -> str:
        return f"{self.scale if self.size is None else self.size}, {self.sample_type}"


class ReflectionPad2D(HybridBlock):
    """Images with a border of their own pixels, mirrored at the outermost ones. Shapes: H, W -> 2 padding more each."""

    def __init__(self, padding: int = 0) -> None:
        if padding < 0:
            raise ValueError(f"ReflectionPad2D: padding must not be negative, got {padding!r} ({user_line()})")
        self.padding = padding

    def forward(self, x: NDArray) -> NDArray:
        """See the class."""
        around = (self.padding, self.padding)
        return nd.pad(x, ((0, 0), (0, 0), around, around), mode="reflect")

    def _describe(self) -> str:
        return str(self.padding)
