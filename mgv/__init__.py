"""mgv: ask a library of videos, get an answer with the moments it rests on."""

__version__ = "0.1.0"
