"""Measure any function at all; here raw pixels against the squared ones."""

import numpy as np
from sklearn.datasets import load_digits

import vci_jax


def main():
    """Prints VCI of two hand-made features; the last batch is padded to keep one shape."""
    images, labels = load_digits(return_X_y=True)
    images = np.pad(images / 16, ((0, -len(images) % 256), (0, 0)))
    mask = np.arange(len(images)) < len(labels)
    labels = np.pad(labels, (0, len(images) - len(labels)))
    cuts = [slice(i, i + 256) for i in range(0, len(images), 256)]
    reports = {}
    for name, features in {"pixels": np.asarray, "squares": np.square}.items():
        batches = [{"image": images[c], "label": labels[c], "mask": mask[c]} for c in cuts]
        reports[name] = vci_jax.measure(features, batches, num_classes=10)
        print(f"{name:<8} VCI {reports[name]['vci']:.3f} ({reports[name]['samples']} samples)")
    return reports


if __name__ == "__main__":
    main()
