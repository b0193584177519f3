"""Over the air: signed packages of models, deltas between two, and the folder on a device that takes them."""
