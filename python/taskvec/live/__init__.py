"""A vector in a live torch model, for as long as a `with` block lasts.

It may import what opens refs and checks options, never the verbs or a study. `parameters` finds which
parameter holds which tensor; what a caller asks for is in `inject`.
"""
