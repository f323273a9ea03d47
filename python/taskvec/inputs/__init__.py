"""Opens what a caller names: a ref becomes a folder, local or on the Hub, for the length of a call.

It may import the Hub, options and errors. Another source of models becomes a package beside `hub`, and a case
in `session`.
"""
