"""What every encoder must do, whatever its blocks and its connection: the whole grid."""

import io
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from residense.nn.branch import Branch
from residense.nn.encoder import Encoder

from .grid import CONNECTIONS, cells, fit, make, of_blocks, two_blocks
from .helpers import each, noise_like, sentences, unpadded

# without a gradient at the first step, and why
SILENT = {
    "multiway": r"dynamic\.\d+\.0\.weight",  # the map behind it is zero
    "hyper": r"dynamic\.\d+\.(norm\.|\w+_scale$)",  # so is the one between them
}
# rounding errors grow a thousandfold in 16 convolutions and norms without a clear path
AMPLIFIED = ("plain", "post", "projected", "gelu")


main_blocks = of_blocks("conv", "lstm", "transformer")


def fast(block: str, connection: str) -> bool:
    return block in ("conv", "transformer") or connection in ("residual", "dense", "multiway")


def left_of(encoder: Encoder, mask: Tensor) -> Tensor:
    """The mask of the output."""
    return mask[:, :: encoder.stride]


# -- sentences do not depend on their batch --------------------------------------------------------


@torch.no_grad()
def assert_independent(encoder: Encoder, dtype: torch.dtype, tolerance: float) -> None:
    """Each sentence has the same encoding in another order, and alone without padding."""
    x, mask = sentences(dtype=dtype)
    found, left = encoder.eval().to(dtype)(x, mask)
    assert torch.equal(left, left_of(encoder, mask))
    assert found.shape == (*left.shape, encoder.out_dim)
    order = torch.tensor([3, 0, 4, 2, 1])
    permuted = encoder(x[order], mask[order])[0]
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    close(permuted[left[order]], found[order][left[order]])
    for words, expected in zip(each(x, mask), each(found, left), strict=True):
        alone, _ = encoder(words[None], unpadded(len(words)))
        close(alone[0], expected)


@cells(fast)
def test_a_sentence_does_not_depend_on_its_batch(block: str, connection: str) -> None:
    encoder = make(block, connection, 3, branch=partial(Branch, dropout=0.5))
    assert_independent(encoder, torch.float32, 1e-5)
    assert_independent(encoder, torch.float64, 1e-9)


@pytest.mark.slow
@cells(main_blocks, main_blocks)
@pytest.mark.parametrize("depth", [1, 16])
def test_a_sentence_does_not_depend_on_its_batch_at_any_depth(
    block: str, connection: str, depth: int
) -> None:
    encoder = make(block, connection, depth)
    amplified = block == "conv" and any(name in connection for name in AMPLIFIED)
    assert_independent(encoder, torch.float32, 1e-3 if amplified else 1e-4)
    assert_independent(encoder, torch.float64, 1e-9)


def fast_causal(block: str, connection: str) -> bool:
    return block == "causal conv" or connection in ("residual", "dense", "multiway")


def causal(block: str, connection: str) -> bool:
    return block in ("causal conv", "decoder", "gru") and "conv stem" not in connection


@torch.no_grad()
@cells(fast_causal, causal)
def test_under_causal_blocks_a_token_does_not_depend_on_later_ones(
    block: str, connection: str
) -> None:
    encoder = make(block, connection, 2).eval()
    x, mask = sentences()
    before, _ = encoder(x, mask)
    for t in range(1, mask.shape[1]):
        other = x.clone()
        other[:, t] = noise_like(x[:, t])
        after, _ = encoder(other, mask)
        torch.testing.assert_close(after[0, :t], before[0, :t])
        assert not torch.allclose(after[0, t:], before[0, t:])


# -- all parameters learn --------------------------------------------------------------------------


def assert_learns(block: str, connection: str, depth: int) -> None:
    """Gradients reach all parameters and all real tokens, and all is in the state dict."""
    encoder = make(block, connection, depth).double()  # a small step from 1 counts in double
    other = make(block, connection, depth, seed=1).double()
    x, mask = sentences(dtype=torch.float64)
    x.requires_grad_()
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    optimizer = torch.optim.SGD(encoder.parameters(), 1.0)
    for step in range(3):
        optimizer.zero_grad()
        y, left = encoder(x, mask)
        (y * noise_like(y))[left].mean().backward()
        if step == 0:
            assert silent(encoder, SILENT.get(connection)) == []
            assert x.grad is not None and x.grad[mask].any(-1).all() and not x.grad[~mask].any()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    assert [name for name, p in encoder.named_parameters() if torch.equal(p, before[name])] == []
    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer))
    with torch.no_grad():
        found, left = other.eval()(x, mask)
        expected, _ = encoder.eval()(x, mask)
    assert torch.equal(found[left], expected[left])


def silent(encoder: Encoder, but: str | None) -> list[str]:
    """The parameters without a gradient, but for those whose name matches."""
    names = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    return [name for name in names if but is None or not re.search(but, name)]


@cells(fast)
def test_all_parameters_learn_and_all_are_saved(block: str, connection: str) -> None:
    assert_learns(block, connection, 3)


@pytest.mark.slow
@cells(main_blocks, main_blocks)
@pytest.mark.parametrize("depth", [1, 16])
def test_all_parameters_learn_at_any_depth(block: str, connection: str, depth: int) -> None:
    assert_learns(block, connection, depth)


@pytest.mark.slow
@cells(main_blocks, main_blocks)
def test_every_pair_learns_a_small_problem(block: str, connection: str) -> None:
    layers = two_blocks(block)
    strided = "stride" in CONNECTIONS[connection]
    encoder = make(block, connection, 2 * layers if strided else [layers, layers])
    x, mask = sentences()
    left = left_of(encoder, mask)
    tags = torch.randint(4, left.shape, generator=torch.Generator().manual_seed(3))
    head = nn.Linear(encoder.out_dim, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    losses = []
    for _ in range(50):
        loss = F.cross_entropy(head(encoder(x, mask)[0])[left], tags[left])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# -- blocks that write zeros -----------------------------------------------------------------------


def test_blocks_that_start_at_zero_learn_from_the_second_step_on() -> None:
    branch = partial(Branch, norm="none", scale="rezero", dropout=0.0)
    encoder = make("transformer", "residual", 2, branch=branch)
    x, mask = sentences()
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    for step in range(2):
        optimizer.zero_grad()
        encoder(x, mask)[0][mask].square().sum().backward()
        blocks = [p.grad for name, p in encoder.named_parameters() if ".block." in name]
        assert any(grad is not None and grad.any() for grad in blocks) == (step == 1)
        optimizer.step()


@pytest.mark.parametrize("connection", [name for name in CONNECTIONS if fit("conv", name)])
@pytest.mark.parametrize(
    "options", [{"drop_path": 0.9}, {"scale": "rezero", "norm": "none"}], ids=str
)
@pytest.mark.filterwarnings("ignore:.*nothing flows around a block")
def test_the_output_depends_on_every_sentence_even_where_blocks_write_zeros(
    connection: str, options: dict[str, Any]
) -> None:
    encoder = make("conv", connection, 4, branch=partial(Branch, dropout=0.0, **options))
    x, mask = sentences()
    for seed in range(3):
        torch.manual_seed(seed)
        words = x.clone().requires_grad_()
        y, left = encoder(words, mask)
        (y * torch.randn_like(y))[left].sum().backward()
        assert words.grad is not None and words.grad.flatten(1).any(1).all()


@pytest.mark.parametrize("options", [{"drop_path": 0.5}, {"scale": "rezero"}], ids=str)
def test_where_nothing_flows_around_a_block_it_is_never_skipped(options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="nothing flows around a block"):
        encoder = make("conv", "plain", 3, branch=partial(Branch, dropout=0.0, **options))
    control = make("conv", "plain", 3)
    control.load_state_dict(encoder.state_dict())
    x, mask = sentences()
    assert torch.equal(encoder(x, mask)[0], control(x, mask)[0])
