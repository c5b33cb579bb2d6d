"""The study of docs/study.md: does collapse cost transfer, and does VCI see it?

``score`` makes the raw file of a trained network; ``networks`` reads all of them, ``resampling``
draws them anew, ``statements`` and ``choosing`` say what follows, and ``document`` and ``pictures``
write it up.
"""
