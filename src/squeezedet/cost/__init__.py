"""What a network weighs: parameters, FLOPs, activations and memory, layer by layer; no particular detector is known."""
