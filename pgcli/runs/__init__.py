"""What a run is on disk: its directory, records, checkpoints, summary."""
