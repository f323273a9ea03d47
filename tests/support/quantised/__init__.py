"""Quantised checkpoints without taskvec: small ones of every layout, their exact values, and real censuses.

`census` and `miniature` need numpy alone; benches use them too.
"""
