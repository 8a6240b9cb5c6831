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
    "GRU": "nn.blocks",
    "LSTM": "nn.blocks",
    "Linear": "nn.blocks",
    "Sequential": "nn.blocks",
    "Branch": "nn.branch",
    "Place": "nn.branch",
    "AttentionResiduals": "nn.connections",
    "Connection": "nn.connections",
    "DeepNorm": "nn.connections",
    "Dense": "nn.connections",
    "DepthWeighted": "nn.connections",
    "DualPath": "nn.connections",
    "GatedResidual": "nn.connections",
    "Highway": "nn.connections",
    "HyperConnections": "nn.connections",
    "Layout": "nn.connections",
    "ManifoldConstrainedHyperConnections": "nn.connections",
    "MultiwayDynamicDense": "nn.connections",
    "Plain": "nn.connections",
    "PostNorm": "nn.connections",
    "ProjectedResidual": "nn.connections",
    "Residual": "nn.connections",
    "ScalarMix": "nn.connections",
    "UNetSkips": "nn.connections",
    "Encoder": "nn.encoder",
    "Stage": "nn.encoder",
    "DenseTransition": "nn.transition",
    "PoolTransition": "nn.transition",
    "Transition": "nn.transition",
    "BatchNorm": "nn.norms",
    "LayerNorm": "nn.norms",
    "NoNorm": "nn.norms",
    "Norm": "nn.norms",
    "RMSNorm": "nn.norms",
    "CharCNN": "nn.embeddings",
    "CharLSTM": "nn.embeddings",
    "Embeddings": "nn.embeddings",
    "TableSizes": "nn.embeddings",
    "AttentionPooling": "nn.pooling",
    "ClassToken": "nn.pooling",
    "KMaxPooling": "nn.pooling",
    "LastPooling": "nn.pooling",
    "MaxPooling": "nn.pooling",
    "MeanPooling": "nn.pooling",
    "Pooling": "nn.pooling",
    "CRF": "nn.heads",
    "Softmax": "nn.heads",
    "TaggingHead": "nn.heads",
    "ClassScores": "metrics",
    "SpanF1": "metrics",
    "Warmup": "optim",
    "Task": "tasks.base",
    "Classifier": "tasks.classification",
    "JointTagger": "tasks.joint",
    "Tagger": "tasks.tagging",
    "Synthetic": "data.synthetic",
    "SyntheticTexts": "data.synthetic_texts",
    "ClassificationDataModule": "data.classification",
    "SlotsDataModule": "data.slots",
    "TaggingDataModule": "data.tagging",
    "Vocabulary": "data.vocabulary",
    "EMA": "callbacks.ema",
}

if TYPE_CHECKING:
    from residense.callbacks.ema import EMA as EMA
    from residense.data.classification import ClassificationDataModule as ClassificationDataModule
    from residense.data.slots import SlotsDataModule as SlotsDataModule
    from residense.data.synthetic import Synthetic as Synthetic
    from residense.data.synthetic_texts import SyntheticTexts as SyntheticTexts
    from residense.data.tagging import TaggingDataModule as TaggingDataModule
    from residense.data.vocabulary import Vocabulary as Vocabulary
    from residense.metrics import ClassScores as ClassScores
    from residense.metrics import SpanF1 as SpanF1
    from residense.nn.blocks import GRU as GRU
    from residense.nn.blocks import LSTM as LSTM
    from residense.nn.blocks import Attention as Attention
    from residense.nn.blocks import Block as Block
    from residense.nn.blocks import Conv as Conv
    from residense.nn.blocks import FeedForward as FeedForward
    from residense.nn.blocks import Linear as Linear
    from residense.nn.blocks import Sequential as Sequential
    from residense.nn.branch import Branch as Branch
    from residense.nn.branch import Place as Place
    from residense.nn.connections import AttentionResiduals as AttentionResiduals
    from residense.nn.connections import Connection as Connection
    from residense.nn.connections import DeepNorm as DeepNorm
    from residense.nn.connections import Dense as Dense
    from residense.nn.connections import DepthWeighted as DepthWeighted
    from residense.nn.connections import DualPath as DualPath
    from residense.nn.connections import GatedResidual as GatedResidual
    from residense.nn.connections import Highway as Highway
    from residense.nn.connections import HyperConnections as HyperConnections
    from residense.nn.connections import Layout as Layout
    from residense.nn.connections import (
        ManifoldConstrainedHyperConnections as ManifoldConstrainedHyperConnections,
    )
    from residense.nn.connections import MultiwayDynamicDense as MultiwayDynamicDense
    from residense.nn.connections import Plain as Plain
    from residense.nn.connections import PostNorm as PostNorm
    from residense.nn.connections import ProjectedResidual as ProjectedResidual
    from residense.nn.connections import Residual as Residual
    from residense.nn.connections import ScalarMix as ScalarMix
    from residense.nn.connections import UNetSkips as UNetSkips
    from residense.nn.embeddings import CharCNN as CharCNN
    from residense.nn.embeddings import CharLSTM as CharLSTM
    from residense.nn.embeddings import Embeddings as Embeddings
    from residense.nn.embeddings import TableSizes as TableSizes
    from residense.nn.encoder import Encoder as Encoder
    from residense.nn.encoder import Stage as Stage
    from residense.nn.heads import CRF as CRF
    from residense.nn.heads import Softmax as Softmax
    from residense.nn.heads import TaggingHead as TaggingHead
    from residense.nn.norms import BatchNorm as BatchNorm
    from residense.nn.norms import LayerNorm as LayerNorm
    from residense.nn.norms import NoNorm as NoNorm
    from residense.nn.norms import Norm as Norm
    from residense.nn.norms import RMSNorm as RMSNorm
    from residense.nn.pooling import AttentionPooling as AttentionPooling
    from residense.nn.pooling import ClassToken as ClassToken
    from residense.nn.pooling import KMaxPooling as KMaxPooling
    from residense.nn.pooling import LastPooling as LastPooling
    from residense.nn.pooling import MaxPooling as MaxPooling
    from residense.nn.pooling import MeanPooling as MeanPooling
    from residense.nn.pooling import Pooling as Pooling
    from residense.nn.transition import DenseTransition as DenseTransition
    from residense.nn.transition import PoolTransition as PoolTransition
    from residense.nn.transition import Transition as Transition
    from residense.optim import Warmup as Warmup
    from residense.tasks.base import Task as Task
    from residense.tasks.classification import Classifier as Classifier
    from residense.tasks.joint import JointTagger as JointTagger
    from residense.tasks.tagging import Tagger as Tagger


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"residense.{_HOME[name]}"), name)
    raise AttributeError(f"module 'residense' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
