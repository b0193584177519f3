"""Ten million frames: label them with many processes, and find those worth a person's labels."""
