"""The command line: `coseg doctor | segment | train | evaluate | ship | ablate | report | download`.

One file a command, whose function `command` is what it does and whose EXAMPLES end its help; `options` is what several
of them take, `main` puts them together. The library is imported inside the functions, so that `coseg --help` costs
nothing. An error is one line on stderr, `coseg: <file>: <what is wrong>; <what to do>`, and an exit code that is not 0.
"""
