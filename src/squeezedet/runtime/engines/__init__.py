"""Inference engines: one per file."""
