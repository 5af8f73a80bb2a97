"""Saliency methods: one paper, one file. Files that start with an underscore are shared parts."""
