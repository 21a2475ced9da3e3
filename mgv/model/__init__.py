"""Model: the language side; and the video language model with its connectors."""
