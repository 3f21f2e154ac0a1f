"""Frozen backbones of `keras.applications`: their weights, and their graphs made fast."""
