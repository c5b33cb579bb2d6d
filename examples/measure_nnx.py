"""Measure a flax.nnx network, its classifier included."""

import jax
from flax import nnx
from sklearn.datasets import load_digits

import vci_jax


class Network(nnx.Module):
    """Two layers; ``features`` is what the classifier sees."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def features(self, images):
        """The input of the classifier."""
        return jax.nn.relu(self.hidden(images))

    def __call__(self, images):
        """Logits of a batch."""
        return self.head(self.features(images))


def main():
    """Prints how far the untrained classifier is from the class means (NC3)."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    network = Network(nnx.Rngs(0))
    batches = ((images[i : i + 128], labels[i : i + 128]) for i in range(0, len(labels), 128))

    features = nnx.jit(lambda network, images: network.features(images))
    head = (network.head.kernel[...], network.head.bias[...])
    report = vci_jax.measure(lambda x: features(network, x), batches, num_classes=10, head=head)
    print(f"VCI {report['vci']:.3f}, self-duality error {report['self_duality']:.3f}")
    return report


if __name__ == "__main__":
    main()
