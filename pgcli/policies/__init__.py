"""Policies and critics, S agents side by side."""
