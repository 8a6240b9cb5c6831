"""Data modules: read corpora, convert and cache them, and divide them into batches."""
