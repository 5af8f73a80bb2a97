"""Metrics: what a map or a box is worth under a protocol. Numpy only."""
