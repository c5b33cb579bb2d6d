"""Training objectives, and regularisers against the collapse of features.

``loss(logits, targets) -> [B]`` is the loss of each sample: training averages a batch, evaluation
adds up a split. Targets are labels ``[B]`` or, for mixed images and smoothed labels, distributions
over the classes ``[B K]``. ``regulariser(features, labels) -> []`` is added to the mean loss of a
batch.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

import vci_jax
from train.config import ConfigError, LossConfig

Loss = Callable[[jax.Array, jax.Array], jax.Array]
Regulariser = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(
    logits: jax.Array, targets: jax.Array, *, temperature: float, logit_norm: bool
) -> jax.Array:
    """Returns ``-sum_k target_k log softmax(logits / temperature)_k``.

    With ``logit_norm`` the logits of a sample are first divided by their length.

    Reference: S. Kornblith et al., Why Do Better Loss Functions Lead to Less Transferable
    Features?, NeurIPS 2021, section 2.
    """
    logits = (_normalise(logits) if logit_norm else logits) / temperature
    if targets.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the sum of the binary cross-entropies of the K classes.

    -sum_k [target_k log sigmoid(logit_k) + (1 - target_k) log sigmoid(-logit_k)]
    """
    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def squared_error(
    logits: jax.Array, targets: jax.Array, *, target: float, weight: float
) -> jax.Array:
    """Returns the rescaled squared error of Hui & Belkin, which is plain for M = k = 1.

        (1/K) [k (z_y - M)^2 + sum_{j != y} z_j^2]

    Here z are the logits, y is the label, M the ``target`` of its logit and k the ``weight``. A
    distribution t over the classes gives logit j the target M t_j and the weight 1 + (k - 1) t_j.

    Reference: L. Hui and M. Belkin, Evaluation of Neural Architectures Trained with Square Loss
    vs Cross-Entropy in Classification Tasks, ICLR 2021, section 3.
    """
    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    weights = 1 + (weight - 1) * targets
    return jnp.mean(weights * optax.squared_error(logits, target * targets), axis=-1)


def cosine_regulariser(
    features: jax.Array, labels: jax.Array, *, form: str, group: int
) -> jax.Array:
    """Returns how alike the features of a class are in direction, in a batch or parts of it.

    With u_i = h_i / ||h_i||, n_k samples of class k among B, and K_B classes present,

        r1 = (1/B)   sum_k (1/n_k)   || sum_{i in k} u_i ||^2
        r2 = (1/K_B) sum_k (1/n_k^2) || sum_{i in k} u_i ||^2
        r3 = (1/K_B) sum_k (1/n_k^3) || sum_{i in k} u_i ||^2

    are weighted sums of u_i . u_j over pairs of samples of one class, so absent classes add
    nothing. A zero feature has u_i = 0. r1 and r2 are 1 if the features of each class are parallel.
    The result is the mean over groups of ``group`` consecutive samples; 0 is the whole batch.

    Raises:
      ValueError: the batch is not a whole number of groups.
    """
    batch, dim = features.shape
    group = group or batch
    if batch % group:
        raise ValueError(
            f"the regulariser cannot divide a batch of {batch} into groups of {group}; make the "
            "batch a multiple of --loss.cosine_group, or set that to 0 for one group."
        )
    compare = jax.vmap(partial(_compare, form=form))
    return jnp.mean(compare(features.reshape(-1, group, dim), labels.reshape(-1, group)))


def _compare(features: jax.Array, labels: jax.Array, *, form: str) -> jax.Array:
    directions = _normalise(features)
    same = (labels[:, None] == labels[None, :]).astype(directions.dtype)
    counts = jnp.sum(same, axis=1)  # n of each sample's class
    classes = jnp.sum(1 / counts)  # K_B
    weights = {
        "r1": 1 / (len(labels) * counts),
        "r2": 1 / (classes * counts**2),
        "r3": 1 / (classes * counts**3),
    }[form]
    precision = jax.lax.Precision.HIGHEST
    sums = jnp.matmul(same, directions, precision=precision)
    return jnp.einsum("bd,bd,b->", directions, sums, weights, precision=precision)


def _normalise(features: jax.Array) -> jax.Array:
    """Returns rows of length one; rows of zeros stay zero and have a zero gradient."""
    square = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    present = square > 0
    return jnp.where(present, features * jax.lax.rsqrt(jnp.where(present, square, 1)), 0)


def build(config: LossConfig) -> Loss:
    """Returns the objective of a config.

    Raises:
      ConfigError: a setting of another objective is not at its default.
    """
    if config.name != "cross_entropy":
        _refuse_unused(config, "temperature", "logit_norm")
    if config.name == "mse":
        return partial(squared_error, target=config.mse_target, weight=config.mse_weight)
    _refuse_unused(config, "mse_target", "mse_weight")
    if config.name == "sigmoid":
        return sigmoid_cross_entropy
    return partial(cross_entropy, temperature=config.temperature, logit_norm=config.logit_norm)


def build_regulariser(config: LossConfig, num_classes: int) -> Regulariser | None:
    """Returns the weighted sum of the regularisers of a config, or None without any."""
    if not config.cosine:
        _refuse_unused(config, "cosine_form", "cosine_group")
    compare = partial(cosine_regulariser, form=config.cosine_form, group=config.cosine_group)
    spread = partial(vci_jax.vci_loss, num_classes=num_classes)
    terms = [(s, term) for s, term in ((config.cosine, compare), (config.vci, spread)) if s]
    if not terms:
        return None
    return lambda features, labels: jnp.asarray(
        sum(s * term(features, labels) for s, term in terms)
    )


def _refuse_unused(config: LossConfig, *fields: str) -> None:
    """Raises ConfigError for a setting that has no effect and is not at its default."""
    for field in fields:
        value, default = getattr(config, field), getattr(LossConfig, field)
        if value != default:
            raise ConfigError(
                f"--loss.{field} is {value!r} but has no effect on --loss.name {config.name} with "
                f"--loss.cosine {config.cosine}; leave it at {default!r}."
            )
