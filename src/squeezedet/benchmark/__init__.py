"""How long a frame takes, on what machine, and what it costs in joules: one meter per file."""
