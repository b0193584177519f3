"""Structured pruning: fewer channels, chosen by what they are worth and the time they take."""

from squeezedet.compression.slimming.pipeline import Slimmed, slim_network

__all__ = ["Slimmed", "slim_network"]
