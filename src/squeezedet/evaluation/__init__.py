"""Protocols of the referees: one per file."""
