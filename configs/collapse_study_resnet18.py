"""The study of docs/study.md at the width of the paper: ResNet-18 on all of CIFAR-10, in bfloat16.

Exhibits: as ``collapse_study``.

Command: ``timeout -s TERM 540 python -m train collapse_study_resnet18 RUNS/seed_3 --seed 3`` trains
for nine minutes and saves; the same command goes on. Score as the runs of ``collapse_study``.

Data: CIFAR-10 prepared by TFDS (``cifar10/3.0.2``, array_record) in ``--data.data_dir``.

Time: for a GPU; not run by us, for want of one.
"""

import dataclasses

from configs.collapse_study import get_runs as get_small
from train.config import Config, ModelConfig


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    return {name: _wide(small) for name, small in get_small().items()}


def _wide(small: Config) -> Config:
    model = ModelConfig(
        name="resnet18", stem="cifar", dtype="bfloat16", dropout=small.model.dropout, bn_group=256
    )
    data = dataclasses.replace(small.data, train_split="train", batch_size=256)
    return dataclasses.replace(small, model=model, data=data)
