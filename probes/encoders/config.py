"""All settings of the probes with their defaults; the command line changes any of them."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Tasks, data and settings of the probes."""

    suite: Literal["paper", "small"] = "paper"
    """The ten data sets of the paper, or seven tasks that need no download but CIFAR's."""
    task: tuple[str, ...] = ()
    """Only these tasks, of any suite; or sources of images, such as folder:PATH or tfds:mnist."""
    data: tuple[str, ...] = ()
    """Sources of images, each a task of its own: folder:PATH, tfds:NAME, digits."""
    out: str = ""
    """Directory for the results of models other than runs; empty for probes-out."""
    data_dir: str = ""
    """Directory of prepared TFDS data sets and of image folders; empty for the default of TFDS."""
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    """Other sources of images for tasks, as TASK SOURCE pairs: sign_digits folder:/photos."""
    step: int = -1
    """Step of the checkpoint to probe; -1 for the last one."""
    best: bool = False
    """Probe the saved checkpoint with the best test row, as checkpoint.best defines it."""
    image_size: int = 0
    """Side of the input images; 0 for the size that the network was trained on."""
    batch_size: int = 256
    """Images per forward pass, over all devices together; affects the speed alone."""
    shard_rows: int = 8192
    """Images per shard on disk; an interruption loses at most one shard."""
    threads: int = 2
    """Threads that read images."""
    max_unreadable: int = 0
    """Number of unreadable images to leave out; with more, a task fails and names them."""
    keep_features: bool = True
    """Keep the features in RUN/features; otherwise delete them once all tasks are scored."""
    seed: int = 0
    """Seed of the hold-out split, a stratified fifth of train, for tasks without validation."""
    neighbours: int = 20
    """Number k of neighbours of the nearest-neighbour score."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point type of the solver's iterations."""
    max_steps: int = 2000
    """Maximum number of L-BFGS steps per penalty."""
