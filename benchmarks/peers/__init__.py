"""Published detectors of the small class, run from their published files to compare with."""
