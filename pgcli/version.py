"""Which version this is, known to every floor."""

__version__ = "0.9.0"
