"""Initial weights from a file or another run, instead of random ones: ``--init``.

    --init resnet50=resnet50-0676ba61.pth    a file, under a name of train.models.public
    --init runs/pretrained                   the last checkpoint of a run

They are read, and compared with the network of the run, before anything is written. Once the run
has a checkpoint of its own they are not read again.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from train import checkpoint, local, models, processes, program
from train.config import Config, ConfigError, DataConfig
from train.errors import RunError
from train.models import public
from train.step import TrainState
from train.workdir import image_shape, read_config

_MAX_LISTED = 6


class Initial(NamedTuple):
    """Weights to start from.

    Attributes:
      variables: those of ``TrainState``, on the host; without ``head`` if a new one is drawn.
      origin: their entry in ``run.json``: file or run, its digest, whether the head was kept.
      notes: sentences on what was chosen, replaced and moved.
    """

    variables: dict[str, Any]
    origin: dict[str, Any]
    notes: tuple[str, ...]


def load(config: Config, shapes: TrainState, size: tuple[int, ...], mesh: Any) -> Initial:
    """Returns the weights that ``config.init`` names, for the network of a run.

    The head is left out where the number of classes differs, or ``config.init_head`` is "new".
    Position embeddings of a ViT are interpolated to the grid of the run's images, whose size is
    ``(height, width, channels)``.

    Raises:
      ConfigError: the weights cannot be read, are not finite, belong to another network, or differ
        between the processes of the run; names the likely cause.
      DamagedRunError: the checkpoint of the run to start from is damaged.
    """
    try:
        word, path = _parse(config.init)
        digest = _digest_file(path) if word else _digest_run(path)
    except RunError:
        _refuse_disagreement("", failed=True)
        raise
    _refuse_disagreement(digest)
    if not word:
        return _from_run(path, config, shapes, size, mesh)
    return _from_file(word, path, digest, config, shapes, size)


def begin(state: TrainState, initial: Initial) -> TrainState:
    """Returns a state with the loaded weights, sharded as before; a new head stays as drawn.

    The moving average of the weights starts from them as well.
    """
    loaded = dict(jax.tree_util.tree_leaves_with_path(initial.variables))

    def put(path: Any, own: jax.Array) -> jax.Array:
        value = loaded.get(path)
        if value is None:
            return own
        return jax.make_array_from_callback(own.shape, own.sharding, value.__getitem__)

    def replace(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(put, tree)

    return state._replace(**replace(state.variables), ema=replace(state.ema))


def _parse(text: str) -> tuple[str, Path]:
    """Returns the word of a public checkpoint and its file, or "" and the directory of a run."""
    word, _, file = text.partition("=")
    if file and word in public.NETWORKS:
        return word, local.path(file, "--init")
    path = local.path(text, "--init")
    if path.is_dir():
        return "", path
    if text in public.NETWORKS:
        raise ConfigError(f"--init is {text}, the name of a network. {public.where(text)}")
    if path.is_file():
        raise ConfigError(f"--init is {text}, a file: say what it is, as in resnet50={text}.")
    raise ConfigError(
        f"--init is {text!r}, which is neither the directory of a run nor NAME=PATH; names are "
        f"{', '.join(public.NETWORKS)}."
    )


def _refuse_disagreement(digest: str, failed: bool = False) -> None:
    """Raises ConfigError in every process if the digests differ, or one process has failed.

    Failed processes call this as well, since the others wait for their digest.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(bytes.fromhex(digest or "00" * 32), np.uint8)
    digests = processes.gather(own)
    if not failed and not np.array_equal(digests, np.broadcast_to(own, digests.shape)):
        raise ConfigError(
            "--init: not every process of the run reads the same weights; put the same file, or "
            "directory, in the same place of each host."
        )


def _digest_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.sha256).hexdigest()
    except FileNotFoundError:
        return ""  # public.read reports a missing file.
    except OSError as error:
        raise ConfigError(f"--init: {path} cannot be read: {error.strerror}.") from error


def _digest_run(directory: Path) -> str:
    """Returns the digest of what identifies a checkpoint: its step and the settings of its run."""
    identity = [dataclasses.asdict(read_config(directory)), _last_step(directory)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _last_step(directory: Path) -> int:
    step = checkpoint.latest_step(directory / "checkpoints")
    if step is None:
        raise ConfigError(f"--init: {directory} has no checkpoint; train it first.")
    return step


def _from_file(
    word: str, path: Path, digest: str, config: Config, shapes: TrainState, size: tuple[int, ...]
) -> Initial:
    family, name, _, _ = public.NETWORKS[word]
    if name != config.model.name:
        raise ConfigError(
            f"--init is {word}, and --model.name is {config.model.name}: set --model.name {name}."
        )
    if size[2] != 3:
        raise ConfigError(
            f"--init is {word}, which takes images of three channels; those of "
            f"{config.data.source} have {size[2]}."
        )
    loaded = public.read(word, path)
    model = models.build(config.model, max(loaded.classes, 1))
    variables, moved = public.fit(loaded, model, (size[0], size[1]), family.published)
    origin = {"network": word, "file": path.name, "sha256": digest}
    notes = (*loaded.notes, *moved, *_normalisation_hint(config.data, family.mean, family.std))
    return _without_new_head(variables, loaded.classes, origin, notes, config, shapes)


def _from_run(
    directory: Path, config: Config, shapes: TrainState, size: tuple[int, ...], mesh: Any
) -> Initial:
    source, step = read_config(directory), _last_step(directory)
    side = source.data.image_size
    shape = image_shape(directory) or (side, side, len(source.data.mean))
    if not shape[0]:
        raise ConfigError(f"--init: {directory} has not noted how large its images are.")
    with checkpoint.open_reader(directory / "checkpoints") as reader:
        _, state = program.restore(source, reader, step, mesh, shape)
    variables = jax.device_get(state.variables)
    notes = []
    if "position" in variables["params"]:
        old, new = ((edges[0] // source.model.patch, edges[1] // source.model.patch)
                    for edges in (shape, size))  # fmt: skip
        if old != new:
            moved, note = public.move_positions(variables["params"]["position"], old, new)
            variables["params"]["position"] = moved
            notes.append(note)
    if source.eval.averaged:
        notes.append("the weights are the averaged ones, which that run measured.")
    notes += _normalisation_hint(config.data, source.data.mean, source.data.std)
    _refuse_misfits(directory, source, config, variables, shapes)
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).data)
    origin = {"run": directory.resolve().name, "step": step, "sha256": digest.hexdigest()}
    classes = variables["params"]["head"]["bias"].shape[0]
    return _without_new_head(variables, classes, origin, tuple(notes), config, shapes)


def _without_new_head(
    variables: dict[str, Any],
    classes: int,
    origin: dict[str, Any],
    notes: tuple[str, ...],
    config: Config,
    shapes: TrainState,
) -> Initial:
    """Returns the weights, without the head if a new one is drawn, with a note on the head."""
    own = shapes.params["head"]["bias"].shape[0]
    keep = classes == own and config.init_head == "keep"
    if keep:
        head = f"the head of {own:,} classes is kept."
    elif classes:
        head = f"the head of {classes:,} classes is replaced by a new one of {own:,}."
    else:
        head = f"there is no head: a new one of {own:,} classes."
    if not keep:
        params = {name: part for name, part in variables["params"].items() if name != "head"}
        variables = {**variables, "params": params}
    return Initial(variables, origin | {"head": "kept" if keep else "new"}, (head, *notes))


def _normalisation_hint(
    data: DataConfig, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[str, ...]:
    """Returns a note if the weights were trained under another normalisation of the pixels."""
    if np.allclose(data.mean, mean) and np.allclose(data.std, std):
        return ()
    values = [" ".join(f"{value:g}" for value in numbers) for numbers in (mean, std)]
    return (f"trained with --data.mean {values[0]} --data.std {values[1]}, not those of this run.",)


def _refuse_misfits(
    directory: Path, source: Config, config: Config, variables: Any, shapes: TrainState
) -> None:
    """Raises ConfigError, in at most ten lines, if another network is in the directory."""
    there, here = (
        {
            "/".join(part.key for part in path): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if path[1].key != "head" or path[-1].key == "kernel"
        }
        for tree in (variables, shapes.variables)
    )
    problems = [
        f"{name} is {there.get(name, 'missing')} there, {here.get(name, 'missing')} here"
        for name in sorted(there.keys() | here.keys())
        if _without_classes(name, there.get(name)) != _without_classes(name, here.get(name))
    ]
    if not problems:
        return
    listing = [f"  {problem}" for problem in problems[:_MAX_LISTED]]
    if len(problems) > _MAX_LISTED:
        listing.append(f"  and {len(problems) - _MAX_LISTED} more")
    settings = [
        f"--model.{name} {getattr(source.model, name)}"
        for name in ("name", "width", "stem", "patch")
        if getattr(source.model, name) != getattr(config.model, name)
    ]
    cause = f"that run has {' '.join(settings)}." if settings else "its images have other channels."
    title = f"--init: {directory} holds another network:"
    raise ConfigError("\n".join([title, *listing, f"Likely cause: {cause}"]))


def _without_classes(name: str, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return shape[:1] if shape and name == "params/head/kernel" else shape
