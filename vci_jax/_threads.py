"""Threads of BLAS, where two things run at a time.

OpenBLAS has as many threads as there are processors, and those that have nothing to do wait in a
loop. Beside other work that takes more time than it saves: a jackknife of 512 features then took
12 s of two processors, and 1.5 s with a thread of its own.
"""

import contextlib
import importlib
import os


def half_of_the_processors() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which BLAS takes half of the processors.

    By threadpoolctl, which comes with scikit-learn; without it nothing changes.
    """
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return contextlib.nullcontext()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit: contextlib.AbstractContextManager[object] = threadpoolctl.threadpool_limits(
        max(1, (count or 1) // 2), user_api="blas"
    )
    return limit
