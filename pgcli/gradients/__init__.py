"""Per-trajectory gradients and how noisy they are."""
