"""Readers of published weight files, one format per file, NumPy only."""
