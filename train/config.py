"""Every setting of a training run, and every default, in one place.

A run is described by one frozen ``Config``. The files in ``configs/`` return instances of it, the
command line overrides single fields (``--optim.lr 0.05``), and ``config.json`` in the work
directory stores the result, so that a run never resumes under other settings.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from train.errors import ConfigError as ConfigError
from vci_jax import processors


@dataclasses.dataclass(frozen=True)
class MixConfig:
    """Mixing of pairs of training images on the device (mixup and cutmix), and label smoothing."""

    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta distribution; 0 is off."""
    switch_prob: float = 0.5
    """How often a batch is cut rather than mixed, if both are on."""
    prob: float = 1.0
    """How often a batch is mixed at all."""
    label_smoothing: float = 0.0
    """Mass of each target that is spread evenly over all classes."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they reach the network."""

    source: str = "digits"
    """digits, synthetic[:SIZE], tfds:NAME[:VERSION] (prepared), aircraft:, cars: or folder:PATH."""
    data_dir: str = ""
    """Where TFDS keeps prepared data sets; empty is TFDS' own default."""
    train_split: str = "train"
    """Split to train on; slices are those of TFDS, such as train[:90%]."""
    test_split: str = ""
    """Split to measure; empty takes test, validation or val, or 20 % of a folder without splits."""
    batch_size: int = 64
    """Images per training step, over all devices together."""
    image_size: int = 0
    """Side of the square images the network sees; 0 keeps the stored size."""
    crop: Literal["none", "pad", "random_resized"] = "none"
    """Training crop: none, a window of the padded image, or a resized random box."""
    crop_padding: int = 0
    """Pixels of padding on each side for the crop "pad"."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the crop "random_resized", relative to the image."""
    flip: bool = False
    """Mirror half of the training images."""
    policy: Literal["none", "autoaugment_imagenet", "autoaugment_cifar10", "randaugment"] = "none"
    """Colour and shape operations on each training image."""
    randaugment: tuple[int, int] = (2, 9)
    """Number of operations, and their magnitude out of 30, of the policy "randaugment"."""
    erasing: float = 0.0
    """Chance that a rectangle of a training image is replaced by noise."""
    repeats: int = 1
    """Repeated augmentation: how many versions of an image a training batch holds."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter that resizes images, to train on and to measure."""
    resize: int = 0
    """Test transform: short side before the centre crop; 0 is image_size * 256 / 224."""
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    """Subtracted from each channel, in the units of the stored pixels."""
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    """Divides each channel, in the units of the stored pixels."""
    workers: int | Literal["auto"] = 0
    """Processes that read and augment images; 0 uses threads of this process, auto every core."""
    threads: int = 2
    """Threads that read images, in each worker; 0 does it in the training thread."""
    max_unreadable: int = 0
    """Broken images that are skipped, and counted, before the run stops with their names."""
    allow_changes: bool = False
    """Go on with a run though its images are no longer those that it began with."""
    mix: MixConfig = dataclasses.field(default_factory=MixConfig)

    @property
    def processes(self) -> int:
        """``workers`` as a number: for "auto", so many that there is a thread for each core.

        Images that are taken as they are stored need none.
        """
        if self.workers != "auto":
            return self.workers
        if not self.image_size:
            return 0
        return max(processors.available() // max(self.threads, 1), 1)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "resnet18"
    """A member of the families in train/models."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters, statistics and the head are float32 in any case."""
    width: int = 64
    """ResNets: channels of the first stage; each later stage has twice as many."""
    stem: Literal["imagenet", "cifar", "half"] = "imagenet"
    """ResNets: 7x7 stride 2 and max-pool (imagenet), 3x3 (cifar), or 3x3 stride 2 (half)."""
    dropout: float = 0.0
    """ResNets: chance that a feature is zero where the head reads it in training."""
    bn_group: int = 0
    """ResNets: consecutive samples over which BatchNorm takes statistics; 0 is the whole batch."""
    patch: int = 16
    """ViTs: side of the square patches that become tokens."""
    drop_path: float = 0.0
    """ViTs: chance that a sample skips a branch of the last block; rises linearly to there."""
    remat: bool = False
    """ViTs: compute each block again on the way back, for a fraction of the memory."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training objective."""

    name: Literal["cross_entropy", "sigmoid", "mse"] = "cross_entropy"
    """Softmax or sigmoid cross-entropy, or squared error against the one-hot label."""
    temperature: float = 1.0
    """Divides the logits before the softmax of the cross-entropy."""
    logit_norm: bool = False
    """Scale the logits of each image to length one, before the temperature divides them."""
    mse_target: float = 1.0
    """The squared error wants this logit, M, of the true class, and 0 of the others."""
    mse_weight: float = 1.0
    """Weight k of the true class in the squared error; ImageNet takes k = 15 and M = 30."""
    cosine: float = 0.0
    """Strength of the within-class cosine regulariser; 0 is off."""
    cosine_form: Literal["r1", "r2", "r3"] = "r1"
    """Its normalisation, see train/losses.py."""
    cosine_group: int = 0
    """Consecutive samples among which it compares features; 0 is the whole batch."""
    vci: float = 0.0
    """Strength of VCI of the batch (vci_jax.vci_loss): positive collapses features, negative holds
    them apart; 0 is off. The batch needs more images than the network has features."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate over time, and the average of the weights."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    lr: float = 0.1
    """The learning rate at the end of the warm-up, as it is used: no batch size scales it."""
    momentum: float = 0.9
    """SGD: Nesterov's; 0 is plain gradient descent."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: decay of the running means of the gradient and of its square."""
    weight_decay: float = 1e-4
    """Added to the gradient (sgd) or the step (adamw), times the parameter; see decay."""
    head_decay: float = 0.0
    """Further weight decay of the last layer's kernel."""
    decay: Literal["all", "kernels"] = "all"
    """Parameters that decay: all, or none of the biases, norms, class token and positions."""
    warmup_epochs: int = 10
    """Epochs in which the learning rate rises linearly."""
    warmup_lr: float = 0.0
    """The learning rate of the first update; 0, as in flax's recipes, leaves the weights alone."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up: a cosine to final_lr, or step_factor times less each epoch."""
    final_lr: float = 0.0
    """Where the cosine ends."""
    step_factor: float = 0.975
    """What the schedule "step" multiplies the learning rate by after each epoch."""
    clip_norm: float = 0.0
    """Longest gradient, all parameters together; longer ones are scaled down. 0 is off."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one update of the weights."""
    ema: float = 0.0
    """Decay, per update, of the moving average of the weights; 0 keeps none."""


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The metrics pass over both splits; always done at the end."""

    every_epochs: int = 20
    """Epochs between two passes."""
    before_training: bool = True
    """Whether there is a pass before the first step."""
    batch_size: int = 256
    """Changes the speed of the pass, and which images share a block; its last batch is masked."""
    averaged: bool = False
    """Measure the moving average of the weights (optim.ema) rather than the weights."""
    layers: bool = False
    """Measure every depth of the network as well as its features."""
    blocks: int = 16
    """Parts of a split that give VCI its interval, each with a state's memory; 1 gives none."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Saved states, from which a killed run goes on; the last step is always saved."""

    every_epochs: int = 5
    """Epochs between two checkpoints; what a kill can cost."""
    every_steps: int = 0
    """Besides, a checkpoint every so many steps; 0 makes none for that."""
    every_minutes: float = 0.0
    """Besides, a checkpoint so many minutes after the last one; 0 makes none for that."""
    keep: int = 2
    """How many of the latest checkpoints stay on disk."""
    keep_every_epochs: int = 0
    """Besides, one stays for good every so many epochs; 0 keeps none for that."""
    keep_best: int = 0
    """Besides, the so many best stay; each metrics pass is then followed by a checkpoint."""
    best: str = "accuracy"
    """The metric of the test split by which they are best."""
    best_is: Literal["highest", "lowest"] = "highest"
    """Which of its values is best."""


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """The running loss and accuracy of the training batches."""

    every_steps: int = 20
    """Steps between two points of the TensorBoard curves of the training batches."""
    max_loss: float = 10.0
    """Stop where a batch's loss is more than so many times that of the first; 0 never does."""
    profile_steps: int = 0
    """Steps traced for XProf, into WORKDIR/profile, after ten that are not."""
    wandb: str = ""
    """A project of Weights & Biases to send the rows to; none by default."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The devices. None of this changes what a run computes, so a resumed one may change it."""

    model: int = 1
    """Devices that divide one copy of the state among them; 1 gives each a copy of its own."""
    distributed: bool = False
    """Join the other processes of the run, found as jax.distributed.initialize finds them."""
    wait: int = 50
    """Seconds in which the processes must have found each other."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run."""

    name: tyro.conf.Suppress[tyro.conf.Fixed[str]] = "unnamed"
    """The name of the file in configs/ that this run was made from."""
    epochs: int = 300
    """Passes over the training images."""
    seed: int = 0
    """Decides the initial weights, the order of the images and their augmentation."""
    init: str = ""
    """Weights to start from: resnet50=PATH, deit_s=PATH, vit_b=PATH, or the directory of a run."""
    init_head: Literal["keep", "new"] = "keep"
    """Last layer of --init: kept where the classes are as many, or always drawn anew."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


# Fields that a resumed run may change: they affect its numbers by rounding at most. A name that
# ends in a dot stands for a whole section.
FREE = ("data.data_dir", "data.workers", "data.threads", "data.allow_changes", "checkpoint.",
        "log.", "mesh.")  # fmt: skip

_AT_LEAST_ONE = (
    "epochs", "data.batch_size", "data.repeats", "model.width", "model.patch", "optim.accumulate",
    "eval.every_epochs", "eval.batch_size", "eval.blocks", "checkpoint.every_epochs",
    "checkpoint.keep", "log.every_steps", "mesh.model", "mesh.wait",
)  # fmt: skip
_NOT_NEGATIVE = (
    "data.image_size", "data.crop_padding", "data.resize", "data.workers", "data.max_unreadable",
    "data.threads", "model.bn_group", "loss.cosine", "loss.cosine_group", "optim.lr",
    "optim.weight_decay", "optim.head_decay", "optim.warmup_epochs", "optim.warmup_lr",
    "optim.final_lr", "optim.clip_norm", "checkpoint.keep_every_epochs", "checkpoint.every_steps",
    "checkpoint.every_minutes", "checkpoint.keep_best", "log.max_loss", "log.profile_steps", "seed",
)  # fmt: skip
_BELOW_ONE = ("model.drop_path", "model.dropout", "optim.momentum", "optim.betas", "optim.ema")

# Limits that catch typing errors: bytes of a batch, and workers or threads.
_MAX_BATCH_BYTES = 2**36
_MAX_READERS = 1024


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns ``{"optim.lr": 0.1, ...}`` for the nested dictionary of a config."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def flatten_stored(config: dict[str, Any]) -> dict[str, Any]:
    """Returns ``flatten`` of a stored config; fields that an older version lacked have defaults."""
    return flatten(dataclasses.asdict(Config())) | flatten(config)


def validate(config: Config) -> Config:
    """Returns the config unchanged, or raises before anything expensive has started.

    Raises:
      ConfigError: names the field, its value and the values it may have.
    """
    flat = flatten(dataclasses.asdict(config)) | {"data.workers": config.data.processes}
    for field in _AT_LEAST_ONE:
        if flat[field] < 1:
            raise ConfigError(f"--{field} is {flat[field]}; it must be at least 1.")
    for field in _NOT_NEGATIVE:
        if not 0 <= flat[field] < math.inf:
            raise ConfigError(f"--{field} is {flat[field]}; it must be finite and not negative.")
    for field in _BELOW_ONE:
        values = flat[field] if isinstance(flat[field], tuple) else (flat[field],)
        if not all(0 <= value < 1 for value in values):
            raise ConfigError(f"--{field} is {flat[field]}; it must be from 0 to less than 1.")
    for field in ("model.bn_group", "loss.cosine_group"):
        if flat[field] and config.data.batch_size % flat[field]:
            raise ConfigError(
                f"--{field} is {flat[field]}, which does not divide --data.batch_size "
                f"{config.data.batch_size}; make the batch a multiple of it, or set it to 0."
            )
    if config.loss.cosine and (config.data.mix.mixup or config.data.mix.cutmix):
        raise ConfigError(
            f"--loss.cosine is {config.loss.cosine}, but mixed images are of no one class; set "
            "--data.mix.mixup and --data.mix.cutmix to 0."
        )
    if config.eval.averaged and not config.optim.ema:
        raise ConfigError("--eval.averaged has no average to measure; set --optim.ema to 0.9999.")
    for field in ("loss.temperature", "loss.mse_target", "loss.mse_weight", "optim.step_factor"):
        if not 0 < flat[field] < math.inf:
            raise ConfigError(f"--{field} is {flat[field]}; it must be positive.")
    if config.init_head == "new" and not config.init:
        raise ConfigError("--init_head is 'new', but has no effect without --init.")
    if not math.isfinite(config.loss.vci):
        raise ConfigError(f"--loss.vci is {config.loss.vci}; it must be finite.")
    if config.seed >= 2**32:
        raise ConfigError(f"--seed is {config.seed}; it must be less than 2**32.")
    _validate_data(config.data, config.eval.batch_size)
    _validate_rate(config)
    return config


def _validate_data(config: DataConfig, eval_batch_size: int) -> None:
    if not all(std > 0 for std in config.std):
        raise ConfigError(f"--data.std is {config.std}; every number must be positive.")
    if not all(map(math.isfinite, (*config.mean, *config.std))):
        raise ConfigError(
            f"--data.mean is {config.mean} and --data.std {config.std}; all must be finite."
        )
    if config.repeats > config.batch_size:
        raise ConfigError(
            f"--data.repeats is {config.repeats}, more than the {config.batch_size} images of a "
            "batch; lower it."
        )
    for field, number in (("workers", config.processes), ("threads", config.threads)):
        if number > _MAX_READERS:
            raise ConfigError(f"--data.{field} is {number}; it must be at most {_MAX_READERS}.")
    if config.crop == "pad" and not config.crop_padding:
        raise ConfigError("--data.crop is 'pad', but --data.crop_padding is 0; set it to 4.")
    size = max(config.batch_size, eval_batch_size) * config.image_size**2 * len(config.mean)
    if size > _MAX_BATCH_BYTES:
        raise ConfigError(
            f"--data.image_size is {config.image_size}, so that a batch takes {size >> 30:,} GiB; "
            "lower it, or --data.batch_size and --eval.batch_size."
        )


def _validate_rate(config: Config) -> None:
    optim = config.optim
    if optim.warmup_epochs >= config.epochs:
        raise ConfigError(
            f"--optim.warmup_epochs is {optim.warmup_epochs}, which leaves none of the "
            f"{config.epochs} epochs to train in; lower it, or raise --epochs."
        )
    for field in ("warmup_lr", "final_lr"):
        if (rate := getattr(optim, field)) > optim.lr:
            raise ConfigError(
                f"--optim.{field} is {rate}, above --optim.lr {optim.lr}, which is the highest "
                "rate of a run; lower it."
            )
    if optim.step_factor > 1:
        raise ConfigError(
            f"--optim.step_factor is {optim.step_factor}, which would raise the learning rate "
            "after each epoch; it must be at most 1."
        )


def override(
    config: Config, arguments: Sequence[str], program: str = "python -m train {} WORKDIR"
) -> Config:
    """Applies ``--section.field value`` arguments to a config.

    A misspelt or badly typed argument ends the program with exit code 2, and a message that
    suggests the fields that were perhaps meant, under the name of the program for this config.
    """
    program = program.format(config.name)
    return validate(tyro.cli(Config, args=list(arguments), default=config, prog=program))
