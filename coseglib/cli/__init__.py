"""The command line: `coseg doctor | segment | name | train | evaluate | ship | ablate | report | download`.

doctor   what works here                systems     segment, name and train
options  what several of them take      evaluating  evaluate
main     all together, and what an error looks like
workbook  ship, ablate, report and download
A command is a function of its own name; its docstring is its help. The library is imported inside the functions, so
that `coseg --help` costs nothing. An error is one line on stderr, `coseg: <file>: <what is wrong>; <what to do>`, and
an exit code that is not 0.
"""
