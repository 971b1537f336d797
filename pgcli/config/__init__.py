"""The glue to Hydra."""
