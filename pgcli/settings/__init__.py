"""What can be set: names, types, bounds and roles."""
