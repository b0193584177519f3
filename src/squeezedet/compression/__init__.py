"""Deep Compression of any network: prune, share weights, encode (arXiv 1510.00149)."""
