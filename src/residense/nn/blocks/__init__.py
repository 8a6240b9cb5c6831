"""Blocks: bare computations `[B, L, in] -> [B, L, out]` that know nothing of their neighbors."""

from residense.nn.blocks.attention import Attention as Attention
from residense.nn.blocks.base import Block as Block
from residense.nn.blocks.base import BlockFactory as BlockFactory
from residense.nn.blocks.base import Linear as Linear
from residense.nn.blocks.conv import Conv as Conv
from residense.nn.blocks.feedforward import FeedForward as FeedForward
from residense.nn.blocks.recurrent import GRU as GRU
from residense.nn.blocks.recurrent import LSTM as LSTM
from residense.nn.blocks.sequential import Sequential as Sequential
