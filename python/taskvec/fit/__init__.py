"""Checks whether the configs and tokenizers of donors fit those of a target; the core compares the tensors.

It may import refs, options and errors. A config setting that needs a rule of its own goes into `settings`.
"""
