"""What a caller names: a ref becomes a folder, here or on the Hub, which is open while a call lasts.

It may import the Hub, options and errors. Another place to read from becomes a package beside `hub`, and a
case in `session`.
"""
