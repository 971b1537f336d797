"""Settings: their schema, and the glue to Hydra."""
