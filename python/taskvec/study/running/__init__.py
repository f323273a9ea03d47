"""Runs a study: the checks beforehand, the cells in order, and the worker process of another backend."""
