"""Every setting of the probes that a command line can change, and every default, in one place."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """What is probed, on which data, and how."""

    suite: Literal["paper", "small"] = "paper"
    """The ten data sets of the paper, or seven tasks that need no download but CIFAR's."""
    task: tuple[str, ...] = ()
    """Only these tasks, of any suite; or sources of images, such as folder:PATH or tfds:mnist."""
    data: tuple[str, ...] = ()
    """Sources of images, each a task of its own: folder:PATH, tfds:NAME, digits."""
    out: str = ""
    """Directory for the results of models that are no runs; empty is probes-out."""
    data_dir: str = ""
    """Where TFDS keeps prepared data sets, and folders lie beside them; empty is TFDS' default."""
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    """Where the images of a task are instead: TASK SOURCE pairs, sign_digits folder:/photos."""
    step: int = -1
    """The checkpoint to probe; -1 is the last one."""
    best: bool = False
    """Probe the checkpoint with the best test row (checkpoint.best) of those that are kept."""
    image_size: int = 0
    """Side of the network's input; 0 is what it was trained on."""
    batch_size: int = 256
    """Images per forward pass, over all devices together; changes nothing but the speed."""
    shard_rows: int = 8192
    """Images between two marks on disk; what a kill can cost."""
    threads: int = 2
    """Threads that read images."""
    max_unreadable: int = 0
    """Broken images that are left out, and counted, before a task fails with their names."""
    keep_features: bool = True
    """Leave the features on disk, in RUN/features; otherwise delete them once a run is done."""
    seed: int = 0
    """Of the stratified fifth of train that is held out where there is no validation split."""
    neighbours: int = 20
    """k of the nearest-neighbour score."""
    precision: Literal["float32", "float64"] = "float32"
    """Of the iterations of the probes."""
    max_steps: int = 2000
    """Of L-BFGS, for each penalty."""
