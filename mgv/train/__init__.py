"""Training: three stages, each from the one before; on any machine, and the same again after a kill."""
