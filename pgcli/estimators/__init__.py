"""The textbook: returns, baselines and the estimator composed of them, as pure functions."""
