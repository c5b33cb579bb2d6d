"""The seam to flax: ``init_state``, ``train_step`` and ``predict``, all pure.

Nothing here is jitted and nothing knows about devices; ``train/loop.py`` attaches both. There is
no random key in the state: the augmentation draws its own on the host, and what is random in a
step folds ``state.step`` into the seed, so that a resumed run draws the same.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from train.losses import Loss, Regulariser
from train.optim import Average

Batch = dict[str, jax.Array]


class TrainSpec(NamedTuple):
    """What does not change during a run: a static argument of the functions below.

    Attributes:
      model: the network.
      optimizer: of its parameters.
      average: of the weights over the steps, or None.
      loss: of each sample.
      regulariser: of a batch, added to the mean of its losses; or None.
      mix: ``mix(key, batch)`` returns the batch with images mixed and, as ``target``, what they
        are now; or None.
      mean: taken out of each channel.
      std: divides each channel.
      seed: of all that is random in a step.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    average: Average | None
    loss: Loss
    regulariser: Regulariser | None
    mix: Callable[[jax.Array, Batch], Batch] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int


class TrainState(NamedTuple):
    """What a training step changes, and a checkpoint holds.

    Attributes:
      step: batches seen.
      params: of the network.
      batch_stats: running averages of its BatchNorms; empty if it has none.
      opt_state: of the optimiser.
      ema: the moving averages of ``params`` and ``batch_stats``; empty if the spec keeps none.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """The network, as flax takes it."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def head(self) -> tuple[jax.Array, jax.Array]:
        """The last layer as ``(kernel [D K], bias [K])``."""
        return self.params["head"]["kernel"], self.params["head"]["bias"]

    @property
    def averaged(self) -> "TrainState":
        """The state to measure or probe instead of this one: its network is the moving average."""
        return self._replace(**self.ema)


def init_state(spec: TrainSpec, key: jax.Array, image_shape: tuple[int, ...]) -> TrainState:
    """Returns the state before the first step."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = {"batch_stats": {}, **spec.model.init(key, images, train=False)}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **variables,
        opt_state=spec.optimizer.init(variables["params"]),
        ema=variables if spec.average else {},
    )


def train_step(
    spec: TrainSpec,
    state: TrainState,
    batch: Batch,
    *,
    gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Returns the state after one step, and scalars of the batch before it.

    These are ``loss``, ``accuracy`` (against ``label``, which mixing leaves alone),
    ``gradient_norm`` (of all parameters together, before it is clipped) and, if the spec has one,
    ``regulariser``, which ``loss`` does not include.

    Args:
      spec: what to do.
      state: before the step.
      batch: stored images, and their labels.
      gather: brings parameters that devices share to where they are used, and so divides their
        gradient again; the identity on values.
    """
    mix_key, model_key = jax.random.split(_key(spec, state))
    if spec.mix:
        batch = spec.mix(mix_key, batch)
    images = normalise(spec, batch["image"])
    targets = batch["target"] if spec.mix else batch["label"]

    def objective(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        (logits, features), changed = spec.model.apply(
            {**state.variables, "params": gather(params)},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"drop_path": model_key, "dropout": model_key},
        )
        total = loss = jnp.mean(spec.loss(logits, targets))
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        scalars = {"loss": loss, "accuracy": jnp.mean(correct.astype(jnp.float32))}
        if spec.regulariser:
            scalars["regulariser"] = spec.regulariser(features, batch["label"])
            total = loss + scalars["regulariser"]
        return total, (scalars, changed)

    gradient, (scalars, changed) = jax.grad(objective, has_aux=True)(state.params)
    scalars["gradient_norm"] = optax.tree.norm(gradient)
    return _update(spec, state, gradient, changed), scalars


def predict(spec: TrainSpec, state: TrainState, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the logits ``[B K]`` and features ``[B D]`` in evaluation mode."""
    # Flax's type leaves open whether collections come with what the method returns; none do.
    return spec.model.apply(  # type: ignore[return-value]
        state.variables, normalise(spec, images), train=False
    )


def predict_layers(
    spec: TrainSpec, state: TrainState, images: jax.Array
) -> OrderedDict[str, jax.Array]:
    """Returns pooled features of every depth by name, ``features`` and ``logits`` last."""
    inputs = normalise(spec, images)
    # Flax's type leaves open whether collections come with what the method returns; none do.
    return spec.model.apply(  # type: ignore[return-value]
        state.variables, inputs, train=False, method="layers"
    )


def normalise(spec: TrainSpec, images: jax.Array) -> jax.Array:
    """Returns stored pixels as float32 with the mean and deviation of each channel taken out."""
    mean, std = jnp.asarray(spec.mean, jnp.float32), jnp.asarray(spec.std, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std


def _key(spec: TrainSpec, state: TrainState) -> jax.Array:
    return jax.random.fold_in(jax.random.key(spec.seed), state.step)


def _update(
    spec: TrainSpec, state: TrainState, gradient: Any, changed: dict[str, Any]
) -> TrainState:
    """Returns the state after a gradient, with the ``changed`` running averages."""
    updates, opt_state = spec.optimizer.update(gradient, state.opt_state, state.params)
    state = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        **changed,
    )
    if spec.average:
        state = state._replace(ema=spec.average(state.ema, state.variables, state.step))
    return state
