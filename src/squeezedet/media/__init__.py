"""Where images come from and where detections go."""
