"""Variability collapse of a small ResNet on scikit-learn's handwritten digits, no download.

Command: ``python -m train digits runs/digits``

Expected: test accuracy above 99 % (the gate of the tests is 97 %); adjusted VCI falls from 0.41 to
about 0.038 on train and from 0.43 to about 0.053 on test, fuzziness and squared distance with it.
Cosine similarity does not tell the story: it starts at 0.96, since the features of an untrained
network all point the same way, drops to 0.88 as the classes part, and then rises with collapse.

Time: about a minute on two cores, compilation included. Evaluated at 21 points.
"""

from train.config import CheckpointConfig, Config, DataConfig, EvalConfig, ModelConfig, OptimConfig


def get_config() -> Config:
    """Returns the settings of the run."""
    return Config(
        epochs=80,
        data=DataConfig(
            source="digits",
            batch_size=64,
            crop="pad",
            crop_padding=1,
            mean=(4.88,),
            std=(6.01,),
            threads=2,
        ),
        model=ModelConfig(name="resnet8", width=16, stem="cifar"),
        optim=OptimConfig(lr=0.1, weight_decay=1e-3, warmup_epochs=4),
        eval=EvalConfig(every_epochs=4, batch_size=256),
        checkpoint=CheckpointConfig(every_epochs=4),
    )
