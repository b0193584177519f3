"""Deep Compression's last stage: weights as symbols, symbols as bits, bits in one file."""
