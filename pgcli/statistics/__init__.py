"""Statistics over seeds: arrays in, numbers out."""
