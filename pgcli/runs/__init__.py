"""Run directories: logs, checkpoints, progress, summary."""
