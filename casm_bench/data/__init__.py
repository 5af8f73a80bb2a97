"""Data sets, frames and loading. Nothing is imported here, so that `list` stays quick."""
