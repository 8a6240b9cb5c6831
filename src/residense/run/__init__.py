"""Training runs: their directory, checkpoints, loggers and trainer, and how they survive preemption."""
