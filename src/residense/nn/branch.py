"""Norms, dropout and scaling around a block.

Shapes: B batch, L length, D width; mask [B, L] is True at real tokens.
"""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from residense.nn.blocks import Block
from residense.nn.norms import LayerNorm, NoNorm, NormFactory


class Place(NamedTuple):
    """Position of a branch in the encoder.

    Attributes:
        position: Index of the block, from 0.
        depth: Total number of blocks.
        layer: Index of the layer of the block, from 1.
        norm: Default norm of the encoder.
        skips: Whether the connection bypasses the block.
    """

    position: int = 0
    depth: int = 1
    layer: int = 1
    norm: NormFactory = LayerNorm
    skips: bool = True


class Branch(nn.Module):
    """Block with norms, dropout and a scale.

    y = drop_path(scale * dropout(norm_out(f(norm_in(x)))))

    `drop_path` and `rezero` can set the output of a block to zero. Under a connection that does not
    bypass blocks, such as `Plain`, both are disabled with a warning. Differences from the papers:
    `drop_path` is sampled per sentence instead of per batch, and kept outputs are rescaled during
    training; `layer_scale` starts at 0.1 at every depth, where the paper uses smaller values in
    deep stacks.

    Args:
        block: Block to wrap.
        place: Position of the block in the encoder.
        norm: `pre` normalizes the input of the block, `peri` its input and output (arXiv
            2502.02732), `scaled` divides the normalized input by sqrt(layer) (LayerNorm Scaling,
            arXiv 2502.05795), `none` disables both.
        norm_type: Class of these norms; null for the norm of the encoder.
        scale: `layer_scale` learns a factor for each channel (arXiv 2103.17239), `rezero` a single
            factor initialized to 0 (arXiv 2003.04887; intended for `norm: none`), `depth` uses 1 /
            sqrt(depth), `none` uses 1.
        scale_init: Initial value of `layer_scale`.
        dropout: Probability of zeroing a feature of the output.
        drop_path: Probability of skipping the last block for a sentence; it increases linearly with
            the position of the block (arXiv 1603.09382).
    """

    def __init__(
        self,
        block: Block,
        place: Place = Place(),
        norm: Literal["pre", "peri", "scaled", "none"] = "pre",
        norm_type: NormFactory | None = None,
        scale: Literal["none", "layer_scale", "rezero", "depth"] = "none",
        scale_init: float = 0.1,
        dropout: float = 0.1,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if not 0 <= drop_path < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"dropout and drop_path must be in [0, 1); got {dropout} and {drop_path}"
            )
        if not place.skips and (drop_path or scale == "rezero"):
            warnings.warn(
                "branch: drop_path and scale rezero are off, as nothing flows around a block under "
                "this connection",
                stacklevel=1,
            )
            drop_path = 0.0
            scale = "none" if scale == "rezero" else scale
        norm_type = norm_type or place.norm
        self.block = block
        self.norm_in = (NoNorm if norm == "none" else norm_type)(block.in_dim)
        self.norm_out = (norm_type if norm == "peri" else NoNorm)(block.out_dim)
        self.norm_scale = place.layer**-0.5 if norm == "scaled" else 1.0
        self.scale = _scale(scale, scale_init, block.out_dim, place.depth)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path * (place.position + 1) / place.depth

    def forward(self, *streams: Tensor, mask: Tensor, out_mask: Tensor | None = None) -> Tensor:
        """Apply the norms, the block and the scale.

        Args:
            streams: Inputs of the block, each [B, L, in_dim].
            mask: Mask of the inputs.
            out_mask: Mask of the output if the block shortens the sequence; by default `mask`.
        """
        out_mask = mask if out_mask is None else out_mask
        normalized = [self.norm_in(x, mask) for x in streams]
        if self.norm_scale != 1:
            normalized = [self.norm_scale * x for x in normalized]
        y = self.block(*normalized, mask=mask)
        if y.shape[:2] != out_mask.shape or y.shape[-1] != self.block.out_dim:
            raise ValueError(
                f"{type(self.block).__name__} returned a tensor of shape {tuple(y.shape)}; expected "
                f"{(*out_mask.shape, self.block.out_dim)}"
            )
        y = self.norm_out(y, out_mask)
        y = self.dropout(y if self.scale is None else self.scale * y)
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            y = y * (torch.rand(len(y), 1, 1, device=y.device) < keep) / keep
        return y


def _scale(kind: str, start: float, dim: int, depth: int) -> nn.Parameter | float | None:
    if kind == "layer_scale":
        return nn.Parameter(torch.full((dim,), start))
    if kind == "rezero":
        return nn.Parameter(torch.zeros(1))
    return depth**-0.5 if kind == "depth" else None


BranchFactory = Callable[[Block, Place], Branch]
