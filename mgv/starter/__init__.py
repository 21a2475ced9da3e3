"""Starter: the embedded weights, real and small, from ordinary packages."""
