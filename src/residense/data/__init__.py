"""Corpora: read, converted, cached, and cut into batches."""
