"""Demo: a small library of real videos, and three questions to it. Run by `make demo`."""
