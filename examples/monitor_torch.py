"""Follow collapse in a PyTorch loop; the directory is a run to ``python -m probes report``."""

import torch
from sklearn.datasets import load_digits

import vci_jax


def main(directory="runs/torch", epochs=12):
    """Trains a small network and returns the reports of the last measurement."""
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(
        torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    )
    torch.manual_seed(0)
    train, test = torch.utils.data.random_split(data, [0.8, 0.2])
    loaders = {
        "train": torch.utils.data.DataLoader(train, batch_size=64, shuffle=True),
        "test": torch.utils.data.DataLoader(test, batch_size=64),
    }
    backbone = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
    head = torch.nn.Linear(32, 10)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=1e-2)
    names = [str(digit) for digit in range(10)]
    monitor = vci_jax.Monitor(10, every=4, write=directory, class_names=names)
    reports = {}
    for epoch in range(1, epochs + 1):
        for inputs, targets in loaders["train"]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(backbone(inputs)), targets).backward()
            optimizer.step()
        if monitor.due(epoch):
            backbone.eval()
            with torch.no_grad():
                for split, loader in loaders.items():
                    for inputs, targets in loader:
                        features = backbone(inputs)
                        monitor.add(split, features, targets, logits=head(features))
            reports = monitor.log(epoch, step=epoch * len(loaders["train"]))
            backbone.train()
            print(f"epoch {epoch:>2}   VCI {reports['test'].vci:.4f}")
    return reports


if __name__ == "__main__":
    main()
