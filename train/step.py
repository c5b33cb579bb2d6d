"""The seam to flax: ``init_state``, ``train_step`` and ``predict``, all pure.

Nothing here is jitted and nothing knows about devices; ``train/program.py`` attaches both. The
state has no random key: the augmentation draws its own on the host, and a step folds
``state.step`` into the seed, so that a resumed run draws the same.
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
    """The constants of a run: a static argument of the functions below.

    Attributes:
      average: updates the moving average of the weights, or None.
      loss: the loss of each sample.
      regulariser: a term of the batch that is added to its mean loss, or None.
      mix: ``mix(key, batch)`` returns the batch with mixed images and their ``target``, or None.
      mean: subtracted from each channel.
      std: divides each channel.
      seed: seed of everything random in a step.
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
      step: number of batches seen.
      batch_stats: running averages of the BatchNorms; empty without BatchNorms.
      ema: the moving averages of ``params`` and ``batch_stats``; empty if the spec has none.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema: dict[str, Any]

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the network, in flax's form."""
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
    """Returns the state after one step, and scalars of the batch under the weights before it.

    These are ``loss``, ``accuracy`` (against ``label``, which mixing leaves alone),
    ``gradient_norm`` (of all parameters together, before it is clipped) and, if the spec has one,
    ``regulariser``, which ``loss`` does not include.

    ``gather`` replicates parameters that devices share, and so divides their gradient again; on
    values it is the identity.
    """
    key = jax.random.fold_in(jax.random.key(spec.seed), state.step)
    mix_key, model_key = jax.random.split(key)
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
    # Flax's type allows for collections beside the result; here there are none.
    return spec.model.apply(  # type: ignore[return-value]
        state.variables, normalise(spec, images), train=False
    )


def predict_layers(
    spec: TrainSpec, state: TrainState, images: jax.Array
) -> OrderedDict[str, jax.Array]:
    """Returns pooled features of every depth by name, ``features`` and ``logits`` last."""
    return spec.model.apply(  # type: ignore[return-value]
        state.variables, normalise(spec, images), train=False, method="layers"
    )


def normalise(spec: TrainSpec, images: jax.Array) -> jax.Array:
    """Returns stored pixels as float32, standardised by the mean and std of each channel."""
    mean, std = jnp.asarray(spec.mean, jnp.float32), jnp.asarray(spec.std, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std


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
