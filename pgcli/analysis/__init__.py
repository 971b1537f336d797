"""Statistics over runs and seeds: arrays in, numbers out."""
