"""Configs of published encoders against the paper's network, written out for one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.nn import functional as F

from residense import Encoder

from ..nn.test_equalities import IN, assert_same_gradients, random, sentences

CONFIGS = Path(__file__).parents[2] / "configs"


def encoder_of(config: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The encoder that a config describes, its parameters random."""
    monkeypatch.chdir(CONFIGS)
    described = yaml.safe_load(Path(config).read_text())["model"]["init_args"]["encoder"]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Encoder, "encoder", sub_configs=True)
    parsed = parser.parse_object({"encoder": described["init_args"] | {"in_dim": IN}})
    return random(lambda: parser.instantiate_classes(parsed)["encoder"])


def layer_norm(x: Tensor, norm: nn.Module) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.get_parameter("weight"), norm.get_parameter("bias"))


def densenet_bc(encoder: Any, x: Tensor) -> Tensor:
    """A DenseNet-BC of one sentence [L, D] with layer norms: norm-relu-1x1-norm-relu-3 in each layer, then all side by
    side; norm-relu-1x1 and, if it pools, the mean of two tokens between two dense blocks."""
    for b, stage in enumerate(encoder.stages):
        if b:
            joint = encoder.transitions[b - 1]
            x = layer_norm(x, joint.norm).relu() @ joint.squeeze.weight.T + joint.squeeze.bias
            x = torch.stack([pair.mean(0) for pair in x.split(joint.stride)])
        features = [x]
        for squeeze, branch in zip(stage.connection.squeeze, stage.branches, strict=True):
            pairs = zip(features, stage.connection.norms, strict=False)
            y = torch.cat([layer_norm(feature, norm) for feature, norm in pairs], -1).relu()
            y = layer_norm(y @ squeeze.weight.T + squeeze.bias, branch.norm_in).relu()
            conv = branch.block.conv
            features.append(F.conv1d(y.T[None], conv.weight, conv.bias, padding=1)[0].T)
        x = torch.cat(features, -1)
    return layer_norm(x, encoder.norm)


def conv(x: Tensor, module: Any, padding: int = 1) -> Tensor:
    """Convolve one sentence [L, D]."""
    return F.conv1d(x.T[None], module.weight, module.bias, padding=padding)[0].T


def largest_of_three(x: Tensor) -> Tensor:
    """The maximum of three tokens around every second one, as max pooling with size 3 and stride 2."""
    windows = [x[max(0, t - 1) : t + 2] for t in range(0, len(x), 2)]
    return torch.stack([window.amax(0) for window in windows])


def batch_norm(x: Tensor, norm: Any) -> Tensor:
    return (x - norm.mean) / (norm.variance + norm.eps).sqrt() * norm.weight + norm.bias


def dpcnn(encoder: Any, x: Tensor) -> Tensor:
    """Region embedding, then pooling and two pre-activation convolutions with a shortcut, again and again."""
    x = conv(x, encoder.stem.conv)
    for i, stage in enumerate(encoder.stages):
        if i:
            x = largest_of_three(x)
        (branch,) = stage.branches
        first, second = branch.block.blocks
        x = x + conv(conv(x.relu(), first.conv).relu(), second.conv)
    return x


def vdcnn(encoder: Any, x: Tensor) -> Tensor:
    """Convolution, batch norm and ReLU, twice in each block, beside a shortcut; pooling between stages."""
    x = conv(x, encoder.stem.conv)
    for i, stage in enumerate(encoder.stages):
        if i:
            x = largest_of_three(x)
        for j, branch in enumerate(stage.branches):
            y = x
            for block, norm in zip(branch.block.blocks, branch.block.norms, strict=True):
                y = batch_norm(conv(y, block.conv), norm).relu()
            connection = stage.connection
            if j == 0 and connection.projects:
                x = batch_norm(x @ connection.projection.weight.T, connection.norm)
            x = x + y
    return x


@pytest.mark.parametrize(
    ("config", "network"),
    [
        ("densenet_cls.yaml", densenet_bc),
        ("densenet_ner.yaml", densenet_bc),
        ("dpcnn_cls.yaml", dpcnn),
        ("vdcnn_cls.yaml", vdcnn),
    ],
)
def test_the_encoder_of_a_config_is_the_network_of_the_paper(
    config: str, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(config, monkeypatch).eval()
    x, mask = sentences(IN)
    found, left = encoder(x, mask)
    expected = [network(encoder, row[real]) for row, real in zip(x, mask, strict=True)]
    assert_same_gradients(found[left], torch.cat(expected), [x, *encoder.parameters()])
