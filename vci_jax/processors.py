"""How many processors this process may use."""

import os


def available() -> int:
    """Returns the number that a container or a scheduler lets it use, not that of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
