"""Analyses the samples of a run: paired statistics, power, and conclusions in words."""
