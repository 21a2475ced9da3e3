"""Demo: a small library of real videos, and five questions to it. Run by `make demo`."""
