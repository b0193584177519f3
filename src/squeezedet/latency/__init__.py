"""How long a detector takes, stage by stage, and on what machine."""
