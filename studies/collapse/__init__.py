"""Does collapse cost transfer, and does VCI see it? As docs/collapse/preregistration.md plans.

``score`` makes the raw file of a network: which test images its probes get right, and what cheap
numbers say of it.
"""
