"""Whether donors fit a target by their configs and tokenizers; the core compares the tensors.

It may import refs, options and errors. A setting of a config that needs a rule of its own goes into
`settings`.
"""
