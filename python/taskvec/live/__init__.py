"""Puts a vector into a live torch model for the length of a `with` block.

`inject` has the functions that a caller uses, `change` changes the model and restores it, and `parameters`
finds which parameter holds which tensor. It may import what opens refs and checks options, but not the verbs
or a study.
"""
