"""The collection of whole episodes."""
