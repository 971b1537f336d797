"""`pg compare`: estimators side by side at one frozen policy."""
