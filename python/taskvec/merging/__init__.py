"""Runs mergekit's YAML: reads it strictly, works out what each tensor gets, and has the core write it.

Imports everything but studies and the command line. A method is a row of the table in `methods`.
"""
