"""The encoder of a work directory: its network in evaluation mode, and the test transform.

The directory is not changed, so a run may be probed during training. The training data are needed
only if images keep their stored size (``image_size`` 0), and ``run.json`` does not have it.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from probes.encoders import identity
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import Encoder, Outputs, describe_transform
from train import checkpoint, program
from train import mesh as meshes
from train.config import Config, ConfigError, DataConfig
from train.data.arrays import DIGITS_PEAK
from train.data.sources import stored_side
from train.errors import DataError, RunError
from train.step import predict
from train.workdir import image_shape, read_config, read_rows


def load(workdir: Path, options: TransferConfig) -> Encoder:
    """Returns the encoder of a run, from its last checkpoint or the one that options name.

    Raises:
      ConfigError: there is no such checkpoint, it is damaged, or the size of its input is unknown.
    """
    config = read_config(workdir)
    data = _transform(workdir, config.data, options)
    mesh = meshes.own_mesh()
    if not (workdir / "checkpoints").is_dir():
        raise ConfigError(f"{workdir} has no checkpoints; train it first.")
    with checkpoint.open_reader(workdir / "checkpoints", alone=True) as reader:
        step = _chosen_step(reader, workdir, config, options)
        shape = (data.image_size, data.image_size, len(data.mean))
        spec, state = program.restore(config, reader, step, mesh, shape)
    replicated, parts = meshes.replicated(mesh), meshes.split(mesh)
    compiled = partial(jax.jit, in_shardings=(replicated, parts), out_shardings=parts)
    features = compiled(lambda state, images: predict(spec, state, images)[1])
    outputs = compiled(lambda state, images: Outputs(*reversed(predict(spec, state, images))))
    identity_fields = {
        "variables": identity.digest_arrays(state.variables),
        "model": dataclasses.asdict(config.model),
        "transform": describe_transform(data, data.interpolation),
    }
    row = next((r for r in _test_rows(workdir) if r["step"] == step), {})
    peak = DIGITS_PEAK if config.data.source == "digits" and len(data.mean) == 1 else 255
    return Encoder(
        name=workdir.resolve().name,
        directory=workdir,
        features=partial(features, state),
        outputs=partial(outputs, state),
        num_classes=state.head[1].shape[0],
        mesh=mesh,
        data=data,
        identity=identity_fields,
        peak=peak,
        trained_on=config.data.source,
        experiment=config.name,
        step=step,
        test=row,
    )


def _transform(workdir: Path, data: DataConfig, options: TransferConfig) -> DataConfig:
    """Returns the test transform of a run, for images of any size.

    If the run kept the stored size of its images, those of a task are resized to it.
    """
    side, resize = options.image_size or data.image_size, data.resize
    if not side:
        side = resize = _stored_side(workdir, data, options)
    elif options.image_size:
        # The margin around the centre in proportion, or none if the run had none; 0 is 256 / 224.
        resize = round(resize * side / data.image_size) if data.image_size else side
    return DataConfig(
        image_size=side,
        resize=resize,
        interpolation=data.interpolation,
        mean=data.mean,
        std=data.std,
        data_dir=options.data_dir or data.data_dir,
        threads=options.threads,
        max_unreadable=options.max_unreadable,
    )


def _stored_side(workdir: Path, data: DataConfig, options: TransferConfig) -> int:
    """Returns the side of a run's stored images, from ``run.json`` or else from its data."""
    shape = image_shape(workdir)
    if shape and shape[0] == shape[1]:
        return shape[0]
    problem: RunError | None = None
    for data_dir in dict.fromkeys((data.data_dir, options.data_dir or data.data_dir)):
        try:
            return stored_side(dataclasses.replace(data, data_dir=data_dir))
        except (ConfigError, DataError) as error:
            problem = error
    raise ConfigError(
        f"the run's images kept their size, and it is not known ({problem}) Give the side of "
        "the network's input with --image-size."
    ) from problem


def _chosen_step(
    reader: ocp.CheckpointManager, workdir: Path, config: Config, options: TransferConfig
) -> int:
    steps = sorted(reader.all_steps())
    if not steps:
        raise ConfigError(f"{workdir} has no checkpoint yet; train it first.")
    if options.best:
        metric, highest = config.checkpoint.best, config.checkpoint.best_is == "highest"
        rows = [row for row in _test_rows(workdir) if row["step"] in steps]
        rows = [row for row in rows if row.get(metric) is not None]
        if not rows:
            raise ConfigError(f"no checkpoint in {workdir} has a test row with {metric}.")
        return max(rows, key=lambda row: row[metric] if highest else -row[metric])["step"]
    if options.step != -1 and options.step not in steps:
        raise ConfigError(
            f"--step is {options.step}, and {workdir} has the checkpoints "
            f"{', '.join(map(str, steps))}."
        )
    return steps[-1] if options.step == -1 else options.step


def _test_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of the test split."""
    rows = read_rows(workdir / "metrics.jsonl").values()
    return [row for row in rows if row["split"] == "test"]
