"""What every room stands on; it knows nothing of images.

errors    CosegError, the fault that a person is to read      config   the base of all configurations
paths     where data, weights, checkpoints and reports are    devices  one process or many, in what precision
files     files that are there whole or not at all            tables   one reader and one writer of CSV
progress  how far a job is                               ahead    an iterator in a thread of its own
"""
