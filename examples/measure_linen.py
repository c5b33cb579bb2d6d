"""Measure a flax.linen network: hand ``measure`` a function from images to features."""

import flax.linen as nn
import jax
import numpy as np
from sklearn.datasets import load_digits

import vci_jax


class Network(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, images):
        """Logits, and the features the classifier sees."""
        features = nn.relu(nn.Dense(32)(images))
        return nn.Dense(10, name="head")(features), features


def main():
    """Prints VCI of an untrained network, with an error bar."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # the interval needs shuffled data
    images, labels = images[order] / 16, labels[order]
    network = Network()
    variables = network.init(jax.random.key(0), images[:1])
    batches = ((images[i : i + 128], labels[i : i + 128]) for i in range(0, len(labels), 128))

    features = jax.jit(lambda images: network.apply(variables, images)[1])
    report = vci_jax.measure(features, batches, num_classes=10, blocks=5)
    print(f"VCI {report['vci']:.3f}", "in [{:.3f}, {:.3f}]".format(*report["vci_interval"]))
    return report


if __name__ == "__main__":
    main()
