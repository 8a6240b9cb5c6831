"""Residense: residual and dense connections as interchangeable parts of NLP encoders, on PyTorch Lightning.

Public names are imported when first used, so that `import residense` costs nothing and `main.py` can act before torch
is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Attention": "nn.blocks",
    "Block": "nn.blocks",
    "Conv": "nn.blocks",
    "FeedForward": "nn.blocks",
    "LSTM": "nn.blocks",
    "Connection": "nn.connections",
    "Dense": "nn.connections",
    "Plain": "nn.connections",
    "Residual": "nn.connections",
    "Branch": "nn.encoder",
    "Encoder": "nn.encoder",
    "Stage": "nn.encoder",
    "Transition": "nn.encoder",
    "CharCNN": "nn.embeddings",
    "CharLSTM": "nn.embeddings",
    "Embeddings": "nn.embeddings",
    "CRF": "nn.heads",
    "Softmax": "nn.heads",
    "TaggingHead": "nn.heads",
    "SpanF1": "metrics",
    "Warmup": "optim",
    "Task": "tasks.base",
    "Tagger": "tasks.tagging",
    "Synthetic": "data.synthetic",
    "TaggingDataModule": "data.tagging",
    "Vocabulary": "data.vocabulary",
    "EMA": "callbacks.ema",
}

if TYPE_CHECKING:
    from residense.callbacks.ema import EMA as EMA
    from residense.data.synthetic import Synthetic as Synthetic
    from residense.data.tagging import TaggingDataModule as TaggingDataModule
    from residense.data.vocabulary import Vocabulary as Vocabulary
    from residense.metrics import SpanF1 as SpanF1
    from residense.nn.blocks import LSTM as LSTM
    from residense.nn.blocks import Attention as Attention
    from residense.nn.blocks import Block as Block
    from residense.nn.blocks import Conv as Conv
    from residense.nn.blocks import FeedForward as FeedForward
    from residense.nn.connections import Connection as Connection
    from residense.nn.connections import Dense as Dense
    from residense.nn.connections import Plain as Plain
    from residense.nn.connections import Residual as Residual
    from residense.nn.embeddings import CharCNN as CharCNN
    from residense.nn.embeddings import CharLSTM as CharLSTM
    from residense.nn.embeddings import Embeddings as Embeddings
    from residense.nn.encoder import Branch as Branch
    from residense.nn.encoder import Encoder as Encoder
    from residense.nn.encoder import Stage as Stage
    from residense.nn.encoder import Transition as Transition
    from residense.nn.heads import CRF as CRF
    from residense.nn.heads import Softmax as Softmax
    from residense.nn.heads import TaggingHead as TaggingHead
    from residense.optim import Warmup as Warmup
    from residense.tasks.base import Task as Task
    from residense.tasks.tagging import Tagger as Tagger


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"residense.{_HOME[name]}"), name)
    raise AttributeError(f"module 'residense' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
