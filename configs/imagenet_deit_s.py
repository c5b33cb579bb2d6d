"""DeiT-S on ImageNet-1K by the recipe of Touvron et al. (2021), 300 epochs.

Exhibit: Figure 5 (Xu & Liu 2023).

Command: ``python -m train imagenet_deit_s runs/imagenet_deit_s``

Data: see ``imagenet_resnet50``.

Expected: 79.9 % top-1 (Touvron et al., Table 5, where RandAugment stands in for AutoAugment). Not
run by us: an accelerator's job.
"""

from train.config import Config, DataConfig, EvalConfig, MixConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        epochs=300,
        data=DataConfig(
            source="tfds:imagenet2012",
            test_split="validation",
            batch_size=1024,
            image_size=224,
            interpolation="bicubic",
            crop="random_resized",
            flip=True,
            policy="autoaugment_imagenet",
            erasing=0.25,
            repeats=3,
            workers="auto",
            max_unreadable=10,
            mix=MixConfig(mixup=0.8, cutmix=1.0, switch_prob=0.5, label_smoothing=0.1),
        ),
        model=ModelConfig(name="deit_s", dtype="bfloat16", drop_path=0.1),
        optim=OptimConfig(
            name="adamw",
            lr=1e-3,  # 5e-4 per 512 images
            weight_decay=0.05,
            decay="kernels",
            warmup_epochs=5,
            warmup_lr=1e-6,
            final_lr=1e-5,
            ema=0.99996,
        ),
        eval=EvalConfig(every_epochs=20, batch_size=1024),
    )
