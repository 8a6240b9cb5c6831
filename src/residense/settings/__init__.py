"""Settings: what the command line, configs and checkpoints may say, and how it is read."""
