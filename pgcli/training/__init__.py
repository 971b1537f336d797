"""`pg train`."""
