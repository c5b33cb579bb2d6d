"""The compiled functions of a run: jit, shardings and donation are attached here alone.

Batches are divided among the devices. The train state is divided among those of the model axis
from its initialisation on, and replicated for a metrics pass. State and tallies are donated: each
step writes its result where its input was, so neither is ever held twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from train import checkpoint, evaluate, losses, models, optim
from train import mesh as meshes
from train.config import Config
from train.data import mix
from train.step import TrainSpec, TrainState, init_state, predict, predict_layers, train_step


class Program(NamedTuple):
    """The compiled functions, and the shapes of the state with their shardings."""

    shapes: TrainState
    init_state: Callable[[jax.Array], TrainState]
    train_step: jax.stages.Wrapped
    gather: Callable[[TrainState], TrainState]
    inspect: Callable[[TrainState], tuple[jax.Array, jax.Array]]
    init_tally: Callable[[], evaluate.Tally]
    add_batch: jax.stages.Wrapped
    merge: Callable[[evaluate.Tally], evaluate.Tally]
    features: jax.stages.Wrapped


def build(
    spec: TrainSpec,
    mesh: Any,
    *,
    image_shape: tuple[int, ...],
    num_classes: int,
    layers: bool,
    blocks: int,
) -> Program:
    """Returns the functions of a spec on a mesh; each compiles when it is first called.

    ``layers`` measures every depth of the network instead of the features alone; ``blocks`` is the
    number of states of a metrics pass, for the interval of VCI.
    """
    init = partial(init_state, spec, image_shape=image_shape)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = meshes.divided(mesh, shapes)
    replicated, parts = meshes.replicated(mesh), meshes.split(mesh)
    shared = mesh.shape["model"] > 1
    gather = partial(jax.lax.with_sharding_constraint, shardings=replicated)
    step = partial(train_step, spec, gather=gather) if shared else partial(train_step, spec)
    dims = _dims(spec, shapes, image_shape, layers)
    tally = partial(evaluate.init_tally, num_classes, dims, blocks)
    return Program(
        shapes=jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            shardings,
        ),
        init_state=jax.jit(init, out_shardings=shardings),
        train_step=jax.jit(
            step,
            in_shardings=(shardings, parts),
            out_shardings=(shardings, replicated),
            donate_argnums=0,
        ),
        gather=jax.jit(lambda s: s, out_shardings=replicated) if shared else lambda s: s,
        inspect=jax.jit(checkpoint.inspect, in_shardings=(shardings,), out_shardings=replicated),
        init_tally=jax.jit(lambda: _stacked(tally(), mesh.size), out_shardings=parts),
        add_batch=jax.jit(
            meshes.per_device(partial(evaluate.add_batch, spec), mesh),
            in_shardings=(parts, replicated, parts),
            out_shardings=parts,
            donate_argnums=0,
        ),
        merge=jax.jit(evaluate.merge, out_shardings=replicated),
        features=jax.jit(
            partial(_features, spec), in_shardings=(replicated, parts), out_shardings=replicated
        ),
    )


def build_spec(config: Config, num_classes: int, steps_per_epoch: int) -> TrainSpec:
    """Returns the spec of a run: network, optimiser, loss, mixing and normalisation."""
    rate = optim.schedule(config.optim, epochs=config.epochs, steps_per_epoch=steps_per_epoch)
    settings = config.data.mix
    mixes = settings.mixup or settings.cutmix or settings.label_smoothing
    return TrainSpec(
        model=models.build(config.model, num_classes),
        optimizer=optim.build(config.optim, rate),
        average=optim.build_average(config.optim),
        loss=losses.build(config.loss),
        regulariser=losses.build_regulariser(config.loss, num_classes),
        mix=mix.build(settings, num_classes, config.data.repeats) if mixes else None,
        mean=config.data.mean,
        std=config.data.std,
        seed=config.seed,
    )


def restore(
    config: Config, reader: Any, step: int, mesh: Any, image_shape: tuple[int, ...]
) -> tuple[TrainSpec, TrainState]:
    """Returns the spec of a run, and the replicated state of one of its checkpoints.

    Under ``eval.averaged`` its weights are the moving average. The devices may differ from those of
    the run; ``reader`` is from ``checkpoint.open_reader``.

    Raises:
      DamagedRunError: the checkpoint is damaged.
    """
    classes = checkpoint.saved_classes(reader, step)
    spec = build_spec(config, classes, steps_per_epoch=1)
    built = build(spec, mesh, image_shape=image_shape, num_classes=classes, layers=False, blocks=1)
    state = checkpoint.read(reader, step, built.shapes, built.inspect)
    state = built.gather(state.averaged if config.eval.averaged else state)
    # Features need neither, and they would stay in memory as long as the network does.
    return spec, state._replace(opt_state=(), ema={})


def _features(
    spec: TrainSpec, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[jax.Array, ...]:
    return predict(spec, state, batch["image"])[1], batch["label"], batch["mask"]


def _dims(
    spec: TrainSpec, state: TrainState, image_shape: tuple[int, ...], layers: bool
) -> dict[str, int]:
    images = jax.ShapeDtypeStruct((1, *image_shape), "uint8")
    outputs = jax.eval_shape(partial(predict_layers, spec), state, images)
    names = [name for name in outputs if name != "logits"] if layers else ["features"]
    return {name: outputs[name].shape[-1] for name in names}


def _stacked(tally: evaluate.Tally, devices: int) -> evaluate.Tally:
    return jax.tree.map(lambda leaf: jax.numpy.broadcast_to(leaf, (devices, *leaf.shape)), tally)
