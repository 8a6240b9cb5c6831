"""Blocks, connections, encoders, embeddings and heads."""
