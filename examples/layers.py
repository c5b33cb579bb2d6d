"""Follow several layers at once: a dictionary of moments, filled in one jitted step."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

import vci_jax


class Network(nn.Module):
    """A small convolutional network."""

    @nn.compact
    def __call__(self, images):
        """Logits, and every layer's output by name."""
        layers = {}
        for index, width in enumerate((16, 32, 64)):  # VCI compares widths of K - 1 and more
            images = nn.relu(nn.Conv(width, (3, 3), strides=(1 + index % 2,) * 2)(images))
            layers[f"conv{index}"] = images
        return nn.Dense(10, name="head")(images.mean(axis=(1, 2))), layers


def pooled(layer):
    """One vector an image: feature maps are averaged over height and width."""
    return layer.mean(axis=(1, 2)) if layer.ndim == 4 else layer


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def step(network, moments, variables, images, labels):
    """One forward pass updates the moments of every layer."""
    layers = network.apply(variables, images)[1]
    return {name: vci_jax.update(moments[name], pooled(layers[name]), labels) for name in moments}


def main():
    """Prints one row a layer."""
    images, labels = load_digits(return_X_y=True)
    images, labels, _ = vci_jax.canonicalize_batch(images / 16, labels)  # they enter a jax.jit
    images = jnp.asarray(images, jnp.float32).reshape(-1, 8, 8, 1)
    network = Network()
    variables = network.init(jax.random.key(0), images[:1])
    shapes = jax.eval_shape(lambda x: network.apply(variables, x)[1], images[:1])
    moments = {name: vci_jax.init(10, shape.shape[-1]) for name, shape in shapes.items()}
    for low in range(0, 1792, 128):
        batch = slice(low, low + 128)
        moments = step(network, moments, variables, images[batch], labels[batch])
    table = {name: vci_jax.report(state) for name, state in moments.items()}
    print(f"{'layer':<8}{'width':>6}{'VCI':>9}{'class separation':>18}")
    for name, row in table.items():
        print(f"{name:<8}{row['dim']:>6}{row['vci']:>9.4f}{row['class_separation']:>18.4f}")
    return table


if __name__ == "__main__":
    main()
