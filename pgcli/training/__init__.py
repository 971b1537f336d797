"""`pg train`: the loop, what it builds, and its session."""
