"""Networks with their anchors, targets, loss and decoding: one detector per file."""
