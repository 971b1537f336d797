"""`pg eval`: trained policies on fresh episodes, as videos, and as files for use elsewhere."""
