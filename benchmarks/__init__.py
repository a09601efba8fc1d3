"""Measurements, run by hand: each script writes one Markdown table under ``docs/benchmarks``."""
