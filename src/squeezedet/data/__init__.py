"""Data sets: one format per file."""
