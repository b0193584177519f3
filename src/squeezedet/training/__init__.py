"""From labelled images to a checkpoint."""
