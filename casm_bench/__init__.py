"""Classifier-agnostic saliency maps, and a benchmark of saliency methods by localization.

`casm_bench.api` is what a method needs; `python -m casm_bench --help` what a user needs.
"""
