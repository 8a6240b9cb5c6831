"""Blocks: modules that map `[B, L, in_dim]` to `[B, L, out_dim]`."""

from residense.nn.blocks.attention import Attention as Attention
from residense.nn.blocks.base import Block as Block
from residense.nn.blocks.base import BlockFactory as BlockFactory
from residense.nn.blocks.base import Linear as Linear
from residense.nn.blocks.conv import Conv as Conv
from residense.nn.blocks.feedforward import FeedForward as FeedForward
from residense.nn.blocks.recurrent import GRU as GRU
from residense.nn.blocks.recurrent import LSTM as LSTM
from residense.nn.blocks.sequential import Sequential as Sequential
