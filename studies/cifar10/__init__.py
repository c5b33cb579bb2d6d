"""The study of docs/study.md: the paper's experiments at the size of CIFAR-10, on two cores.

``jobs`` trains and probes what is missing, ``records`` keeps the raw numbers, ``small_samples``
measures what 2,000 images say, ``claims`` holds the numbers against the paper's statements, and
``document`` writes them down.
"""
