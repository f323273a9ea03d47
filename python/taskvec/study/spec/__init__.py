"""Reads a study file: its sections, the arms and benchmarks that follow from it, and the line of each key."""
