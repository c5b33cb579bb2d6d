"""The compile check: what the programs of a run cost on a TPU, found out without one.

The TPU compiler runs anywhere. It is given the train step and the metrics step exactly as
``train.program`` builds them, on a mesh of described chips, and asked for operations, memory and
collectives; ``python -m tools.compile CONFIG`` prints them with the bound that follows, and fails
if a program does not fit or talks where it should not.
"""
