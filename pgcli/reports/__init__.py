"""`pg report`: what groups of runs achieved."""
