"""Measure an Equinox network: a function of one image becomes a function of a batch by vmap."""

import equinox as eqx
import jax
from sklearn.datasets import load_digits

import vci_jax


class Network(eqx.Module):
    """Two layers; ``features`` is what the classifier sees."""

    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        hidden, head = jax.random.split(key)
        self.hidden = eqx.nn.Linear(64, 32, key=hidden)
        self.head = eqx.nn.Linear(32, 10, key=head)

    def features(self, image):
        """The input of the classifier, for one image."""
        return jax.nn.relu(self.hidden(image))

    def __call__(self, image):
        """Logits of one image."""
        return self.head(self.features(image))


def main():
    """Prints how far the untrained classifier is from the class means (NC3)."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    network = Network(jax.random.key(0))
    batches = ((images[i : i + 128], labels[i : i + 128]) for i in range(0, len(labels), 128))

    features = eqx.filter_jit(eqx.filter_vmap(network.features))
    head = (network.head.weight.T, network.head.bias)  # Equinox keeps [K, D], like PyTorch
    report = vci_jax.measure(features, batches, num_classes=10, head=head)
    print(f"VCI {report['vci']:.3f}, self-duality error {report['self_duality']:.3f}")
    return report


if __name__ == "__main__":
    main()
