"""Flows: how a stage is run (retries, limits, run pages). What a stage does is in mgv."""
