"""Packed vectors without taskvec: a reader written from docs/packed.md, and a forger."""
