"""Networks: one detector per file, with its layers, anchors, targets, loss and decoding."""
