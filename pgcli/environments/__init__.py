"""Environments, many copies stepped together, and their models."""
