"""The residual block of images, with its stride, against strided stages of convolutions."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from residense.nn.blocks import Conv, Sequential
from residense.nn.connections import ProjectedResidual
from residense.nn.encoder import Encoder
from residense.nn.norms import BatchNorm, NormFactory
from residense.nn.transition import Transition

from .test_equalities import DIM, IN, Weights, assert_same_gradients, bare, random, sentences


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, as for images; a 1x1 convolution with a stride where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=(1, stride), padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=(1, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def image_weights(encoder: Any) -> Weights:
    """Our weights under the names of rows of `ResidualBlock`: of a 3x3 kernel an image of height 1 sees one row."""
    weights: dict[str, Tensor] = {}
    norms = {}
    i = 0
    for stage in encoder.stages:
        if stage.connection.projects:
            projection = stage.connection.projection.weight
            weights[f"{i}.downsample.0.weight"] = projection[..., None, None]
            norms[f"{i}.downsample.1"] = stage.connection.norm
        for branch in stage.branches:
            pairs = zip(branch.block.blocks, branch.block.norms, strict=True)
            for j, (block, norm) in enumerate(pairs, 1):
                row = block.conv.weight
                rows = (torch.randn_like(row), row, torch.randn_like(row))
                weights[f"{i}.conv{j}.weight"] = torch.stack(rows, 2)
                norms[f"{i}.bn{j}"] = norm
            i += 1
    return weights | {
        f"{name}.{kind}": getattr(norm, kind)
        for name, norm in norms.items()
        for kind in ("weight", "bias")
    }


class Identity(Transition):
    """Joins stages by nothing, as in a ResNet."""

    def __init__(self, in_dim: int, encoder_norm: NormFactory):
        super().__init__(in_dim, in_dim)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return x, mask


@pytest.mark.parametrize("length", [5, 6])
@pytest.mark.parametrize("in_dim", [DIM, IN])
@pytest.mark.parametrize(
    ("depths", "dims", "strides"),
    [([1], [DIM], [1]), ([4], [DIM], [1]), ([1], [DIM], [2]), ([2, 2], [DIM, 12], [1, 2])],
    ids=str,
)
def test_projected_residual_convolutions_are_the_block_of_images(
    depths: list[int], dims: list[int], strides: list[int], in_dim: int, length: int
) -> None:
    first = partial(Conv, activation="none", bias=False)
    second = partial(Conv, order="before", activation="relu", bias=False)
    block = partial(Sequential, blocks=[first, second], norm=BatchNorm)
    encoder = random(
        lambda: Encoder(
            in_dim,
            block,
            ProjectedResidual,
            depths,
            dims,
            bare,
            Identity,
            norm=BatchNorm,
            final_norm=False,
            stem="none",
            stride=strides,
        )
    )
    rows = []
    width = in_dim
    for depth, dim, stride in zip(depths, dims, strides, strict=True):
        rows.append(ResidualBlock(width, dim, stride))
        rows.extend(ResidualBlock(dim, dim) for _ in range(depth - 1))
        width = dim
    other = nn.Sequential(*rows).double()
    x, mask = sentences(in_dim, (length, length, length))
    image = x.mT[:, :, None]  # [B, C, 1, L]
    for training in (True, True, False):  # evaluation shows the running statistics of both
        weights = image_weights(encoder)
        assert {name: w.shape for name, w in weights.items()} == {
            n: p.shape for n, p in other.named_parameters()
        }
        expected = functional_call(other.train(training), dict(weights), (image,))[:, :, 0].mT
        assert_same_gradients(
            encoder.train(training)(x, mask)[0], expected, [x, *encoder.parameters()]
        )
