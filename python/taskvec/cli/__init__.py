"""The command line: the commands, the help texts of their options, and what they print.

Nothing else in the package imports it; only `python -m taskvec` and the installed command do. A new option
goes into `flags`, a new command into `commands`, and the text of its result into `render`.
"""
