"""The commands from Python: what is run, what comes of it, estimators on one's own batches."""
