"""A narrow ResNet-8 on CIFAR-10, small enough for two CPU cores.

Exhibits: the analogue of Figures 1, 2, 3, 6 and 8 (Xu & Liu 2023).

Command: ``python -m train cifar10_small runs/cifar10_small --data.data_dir DIR``

Data: CIFAR-10 prepared by TFDS (``cifar10/3.0.2``, array_record) in DIR.

Expected: 87.8 % test accuracy and a VCI of 0.32 (train) and 0.35 (test) after 36 minutes on two CPU
cores, which were shared with other work. The stem halves the image: a stage of 32 channels at 16 px
takes as many operations as one of 16 at 32 px, in half the time.
"""

from train.config import CheckpointConfig, Config, DataConfig, EvalConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        epochs=30,
        data=DataConfig(
            source="tfds:cifar10:3.0.2", batch_size=128, crop="pad", crop_padding=4, flip=True
        ),
        model=ModelConfig(name="resnet8", width=32, stem="half"),
        optim=OptimConfig(lr=0.2, weight_decay=5e-4, warmup_epochs=2),
        eval=EvalConfig(every_epochs=3, batch_size=500),
        checkpoint=CheckpointConfig(every_epochs=3),
    )
