"""The study of docs/study.md: what holds features apart, and whether that helps them transfer.

Exhibits: the analogues of Figure 7 and of Tables 1 and 2 (Xu & Liu 2023), with a third group.

Command: ``python -m train collapse_study RUNS/seed_3 --run mse --seed 3`` trains one, and
``python -m studies.cifar10.score RUNS/seed_3/mse --out docs/study/networks`` scores it.

Data: CIFAR-10 prepared by TFDS (``cifar10/3.0.2``, array_record) in DIR; a tenth is trained on.

Time: about two minutes a run on one CPU core.

The regime is ``decay`` of ``configs/pilot.py``. Runs differ in the objective alone, or in what
Kornblith et al. (2021) count with it: dropout before the last layer, and its weight decay.
``tau_1.0`` is plain cross-entropy, and belongs to all three groups.
"""

import dataclasses

from configs.pilot import get_runs as get_pilot
from train.config import Config, LossConfig, MixConfig

TEMPERATURES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
# Not in the preregistration: where the cosine similarity is as low as in the paper.
STRONGER = (1.5, 2.0)


def get_runs() -> dict[str, Config]:
    """Returns the settings of each run."""
    base = get_pilot()["decay_tau_1.0"]
    losses = {f"tau_{tau}": LossConfig(temperature=tau) for tau in TEMPERATURES}
    losses |= {
        f"lambda_{strength}": LossConfig(cosine=strength) for strength in (*STRENGTHS, *STRONGER)
    }
    losses |= {
        "mse": LossConfig(name="mse"),
        "sigmoid": LossConfig(name="sigmoid"),
        "logit_norm": LossConfig(logit_norm=True, temperature=0.04),
        "vci_plus": LossConfig(vci=0.5),
        "vci_minus": LossConfig(vci=-0.5),
    }
    smoothed = dataclasses.replace(base.data, mix=MixConfig(label_smoothing=0.1))
    return {
        **{name: dataclasses.replace(base, loss=loss) for name, loss in losses.items()},
        "smoothing": dataclasses.replace(base, data=smoothed),
        "dropout": dataclasses.replace(base, model=dataclasses.replace(base.model, dropout=0.5)),
        "head_decay": dataclasses.replace(
            base, optim=dataclasses.replace(base.optim, head_decay=0.05)
        ),
    }
