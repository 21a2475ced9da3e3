"""Data: annotation formats → samples, split by content, ready to train on."""
