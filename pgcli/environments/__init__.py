"""Vector environments and the collection of whole episodes."""
