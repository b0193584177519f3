"""Cameras that tell something: lines, zones, counts, events."""
