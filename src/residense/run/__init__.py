"""Training runs: directory, checkpoints, loggers, trainer and preemption."""
