"""ResNet-50 on ImageNet-1K as in the paper: 300 epochs, cross-entropy, batches of 4 x 256.

Exhibits: Figures 1 to 8 (Xu & Liu 2023). The MSE run of Figure 4 is in ``imagenet_losses``.

Command: ``python -m train imagenet_resnet50 runs/imagenet_resnet50``

Data: ImageNet prepared by TFDS (``imagenet2012``), or ``--data.source folder:PATH`` with the
folders of the original archives (``train/<wnid>``, ``val/<wnid>``).

Expected: 77.9 % top-1, the paper's accuracy at temperature 1. Learning rate (0.1 per 256 images)
and weight decay are inferred. Not run by us: an accelerator's job; ``python -m tools.compile``
says what it takes on a TPU.
"""

from train.config import Config, DataConfig, EvalConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        epochs=300,
        data=DataConfig(
            source="tfds:imagenet2012",
            test_split="validation",
            batch_size=1024,
            image_size=224,
            crop="random_resized",
            flip=True,
            policy="autoaugment_imagenet",
            workers="auto",
            max_unreadable=10,
        ),
        model=ModelConfig(name="resnet50", dtype="bfloat16", bn_group=256),
        optim=OptimConfig(lr=0.4, weight_decay=1e-4, warmup_epochs=10),
        # Sixteen blocks would be 1 GB on each device, and as many eigenproblems of 2048 per split.
        eval=EvalConfig(every_epochs=20, batch_size=1024, blocks=1),
    )
