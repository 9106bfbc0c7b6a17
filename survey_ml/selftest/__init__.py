"""Whether an installation works, and whether a release survives what machines do to it.

A small simulated release is run undisturbed, then again and again under a fault each time: a process
killed, a disk full, a bit flipped. The same command has to end with the same release. Behind
``survey-ml selftest``.
"""
