"""Metrics with the same result on any number of processes."""

from residense.metrics.classes import ClassScores as ClassScores
from residense.metrics.spans import Mode as Mode
from residense.metrics.spans import SpanF1 as SpanF1
from residense.metrics.spans import counts as counts
from residense.metrics.spans import per_type as per_type
