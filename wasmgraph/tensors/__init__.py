"""Tensors in files: reading inputs (arrays, pictures, random), writing and summarising outputs."""
