"""Watch collapse in your own training loop: three lines a pass, no wait between batches."""

import functools

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import vci_jax


def forward(params, images):
    """Logits and features of a two-layer network."""
    features = jax.nn.relu(images @ params["hidden"])
    return features @ params["head"], features


@jax.jit
def train_step(params, images, labels):
    """One step of gradient descent on the cross-entropy."""

    def loss(params):
        chosen = jax.nn.log_softmax(forward(params, images)[0])[jnp.arange(len(labels)), labels]
        return -jnp.mean(chosen)

    return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))


@functools.partial(jax.jit, donate_argnums=0)  # the moments are updated in place
def eval_step(moments, params, images, labels):
    """Forward pass and update in one program."""
    return vci_jax.update(moments, forward(params, images)[1], labels)


def main(epochs=16):
    """Prints VCI every few epochs, and returns the values."""
    images, labels = load_digits(return_X_y=True)
    images, labels, _ = vci_jax.canonicalize_batch(images / 16, labels)  # they enter a jax.jit
    batches = [(images[i : i + 64], labels[i : i + 64]) for i in range(0, 1792, 64)]
    one, two = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(one, (64, 48)) / 8,
        "head": jax.random.normal(two, (48, 10)) / 7,
    }
    values = []
    for epoch in range(epochs + 1):
        if epoch % 4 == 0:
            moments = vci_jax.init(num_classes=10, dim=48)
            for batch in batches:
                moments = eval_step(moments, params, *batch)
            values.append(vci_jax.report(moments)["vci"])
            print(f"epoch {epoch:>2}   VCI {values[-1]:.4f}")
        for batch in batches:
            params = train_step(params, *batch)
    return values


if __name__ == "__main__":
    main()
