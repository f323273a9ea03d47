"""The command line: commands, their options in words, and what they print.

It is on top: only `python -m taskvec` and the installed command import it. A new option goes into `flags`,
a new command into `commands`, and how its result reads into `render`.
"""
