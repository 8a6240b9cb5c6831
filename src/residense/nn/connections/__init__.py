"""Connections: how the blocks of a stage are wired."""

from residense.nn.connections.base import Connection as Connection
from residense.nn.connections.base import ConnectionFactory as ConnectionFactory
from residense.nn.connections.base import Layout as Layout
from residense.nn.connections.base import Plain as Plain
from residense.nn.connections.dense import Dense as Dense
from residense.nn.connections.dense import DualPath as DualPath
from residense.nn.connections.depth import AttentionResiduals as AttentionResiduals
from residense.nn.connections.depth import DepthWeighted as DepthWeighted
from residense.nn.connections.depth import MultiwayDynamicDense as MultiwayDynamicDense
from residense.nn.connections.depth import ScalarMix as ScalarMix
from residense.nn.connections.gated import GatedResidual as GatedResidual
from residense.nn.connections.gated import Highway as Highway
from residense.nn.connections.residual import DeepNorm as DeepNorm
from residense.nn.connections.residual import PostNorm as PostNorm
from residense.nn.connections.residual import ProjectedResidual as ProjectedResidual
from residense.nn.connections.residual import Residual as Residual
from residense.nn.connections.residual import UNetSkips as UNetSkips
from residense.nn.connections.streams import HyperConnections as HyperConnections
from residense.nn.connections.streams import (
    ManifoldConstrainedHyperConnections as ManifoldConstrainedHyperConnections,
)
