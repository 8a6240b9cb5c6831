"""The public names; `__init__.py` imports each from here when it is first used."""

__version__: str
__all__: list[str]

from .callbacks.ema import EMA as EMA
from .data.classification import ClassificationDataModule as ClassificationDataModule
from .data.slots import SlotsDataModule as SlotsDataModule
from .data.synthetic import Synthetic as Synthetic
from .data.synthetic_texts import SyntheticTexts as SyntheticTexts
from .data.tagging import TaggingDataModule as TaggingDataModule
from .data.vocabulary import Vocabulary as Vocabulary
from .metrics import ClassScores as ClassScores
from .metrics import SpanF1 as SpanF1
from .model import Model as Model
from .model import load as load
from .nn.blocks import GRU as GRU
from .nn.blocks import LSTM as LSTM
from .nn.blocks import Attention as Attention
from .nn.blocks import Block as Block
from .nn.blocks import Conv as Conv
from .nn.blocks import FeedForward as FeedForward
from .nn.blocks import Linear as Linear
from .nn.blocks import Sequential as Sequential
from .nn.branch import Branch as Branch
from .nn.branch import Place as Place
from .nn.connections import AttentionResiduals as AttentionResiduals
from .nn.connections import Connection as Connection
from .nn.connections import DeepNorm as DeepNorm
from .nn.connections import Dense as Dense
from .nn.connections import DepthWeighted as DepthWeighted
from .nn.connections import DualPath as DualPath
from .nn.connections import GatedResidual as GatedResidual
from .nn.connections import Highway as Highway
from .nn.connections import HyperConnections as HyperConnections
from .nn.connections import Layout as Layout
from .nn.connections import (
    ManifoldConstrainedHyperConnections as ManifoldConstrainedHyperConnections,
)
from .nn.connections import MultiwayDynamicDense as MultiwayDynamicDense
from .nn.connections import Plain as Plain
from .nn.connections import PostNorm as PostNorm
from .nn.connections import ProjectedResidual as ProjectedResidual
from .nn.connections import Residual as Residual
from .nn.connections import ScalarMix as ScalarMix
from .nn.connections import UNetSkips as UNetSkips
from .nn.embeddings import CharCNN as CharCNN
from .nn.embeddings import CharLSTM as CharLSTM
from .nn.embeddings import Embeddings as Embeddings
from .nn.embeddings import TableSizes as TableSizes
from .nn.encoder import Encoder as Encoder
from .nn.encoder import Stage as Stage
from .nn.heads import CRF as CRF
from .nn.heads import Softmax as Softmax
from .nn.heads import TaggingHead as TaggingHead
from .nn.norms import BatchNorm as BatchNorm
from .nn.norms import LayerNorm as LayerNorm
from .nn.norms import NoNorm as NoNorm
from .nn.norms import Norm as Norm
from .nn.norms import RMSNorm as RMSNorm
from .nn.pooling import AttentionPooling as AttentionPooling
from .nn.pooling import ClassToken as ClassToken
from .nn.pooling import KMaxPooling as KMaxPooling
from .nn.pooling import LastPooling as LastPooling
from .nn.pooling import MaxPooling as MaxPooling
from .nn.pooling import MeanPooling as MeanPooling
from .nn.pooling import Pooling as Pooling
from .nn.transition import DenseTransition as DenseTransition
from .nn.transition import PoolTransition as PoolTransition
from .nn.transition import Transition as Transition
from .optim import Warmup as Warmup
from .tasks.base import Task as Task
from .tasks.classification import Classifier as Classifier
from .tasks.joint import JointTagger as JointTagger
from .tasks.tagging import Tagger as Tagger
