"""Estimators against ∇J, by listing all trajectories of small problems: `pg test`."""
