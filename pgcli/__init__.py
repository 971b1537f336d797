"""pg: run policy-gradient methods from the command line and measure their gradient estimators."""

__version__ = "0.6.0"
