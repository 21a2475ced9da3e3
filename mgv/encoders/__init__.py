"""Encoders: frozen pretrained parts behind small protocols (base.py), chosen by name (parts.py)."""

import os

# Read once, when torch is first imported. By default torch's threads spin at every barrier; where another process
# wants the cores, that makes a query of 15 ms one of 500 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
