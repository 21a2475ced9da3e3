"""Evaluation: how good a library, an index or a model is, in numbers that can be made again and compared."""
