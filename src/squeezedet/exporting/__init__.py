"""From a checkpoint to a file that an engine runs."""
