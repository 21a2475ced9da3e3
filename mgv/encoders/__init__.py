"""Encoders: frozen pretrained parts behind small protocols (base.py), chosen by name (parts.py)."""
