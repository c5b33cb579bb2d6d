"""Measure a PyTorch network: features leave as NumPy arrays, everything else stays."""

import torch
from sklearn.datasets import load_digits

import vci_jax


def main():
    """Prints VCI and NC3 of an untrained network."""
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16, dtype=torch.float32)
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
    classifier = torch.nn.Linear(32, 10)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, torch.tensor(labels)), batch_size=128
    )

    @torch.no_grad()
    def features(images):
        return backbone.eval()(images).numpy()

    head = (classifier.weight.detach().numpy().T, classifier.bias.detach().numpy())
    report = vci_jax.measure(features, loader, num_classes=10, head=head)
    print(f"VCI {report['vci']:.3f}, self-duality error {report['self_duality']:.3f}")
    return report


if __name__ == "__main__":
    main()
