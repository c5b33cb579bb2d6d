"""ResNet-18 on CIFAR-10 as in the paper: 300 epochs, cross-entropy, cosine schedule.

Exhibits: Figures 1, 2, 3, 6 and 8 (Xu & Liu 2023), left halves. The other three curves of Figure 3
are this file with ``--loss.name mse``, with ``--optim.schedule step``, and with both; the group
``cifar10_losses`` runs all four.

Command: ``python -m train cifar10_resnet18 runs/cifar10_resnet18``

Data: ``--data.data_dir DIR`` with CIFAR-10 prepared by TFDS (``cifar10/3.0.2``, array_record).

Expected: about 95 % test accuracy. The paper gives no learning rate, weight decay or stem: 0.1 per
256 images, 1e-4 and the 3x3 stem are inferred. Not run to its end by us: an accelerator's job.
"""

from train.config import Config, DataConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        epochs=300,
        data=DataConfig(
            source="tfds:cifar10:3.0.2", batch_size=256, crop="pad", crop_padding=4, flip=True
        ),
        model=ModelConfig(name="resnet18", stem="cifar", bn_group=256),
        optim=OptimConfig(lr=0.1, weight_decay=1e-4, warmup_epochs=10),
    )
