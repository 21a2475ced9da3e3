"""Lineage: an answer asked again of the same versions, two versions compared, runs told to other systems."""
