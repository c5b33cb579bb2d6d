"""Follow collapse in a Lightning training; the directory is a run to ``python -m probes report``.

pip install lightning scikit-learn
"""

import lightning
import torch
from sklearn.datasets import load_digits

import vci_jax


class Collapse(lightning.Callback):
    """Measures the features that ``validation_step`` returns, at every validation."""

    def __init__(self, monitor):
        """Takes the monitor, whose rows it adds and logs."""
        self.monitor, self.reports = monitor, {}

    def on_validation_batch_end(self, trainer, module, outputs, batch, index, loader=0):
        """Adds a batch. The two that check a loader before the training are no measurement."""
        if not trainer.sanity_checking:
            self.monitor.add("test", outputs["features"], batch[1], logits=outputs["logits"])

    def on_validation_epoch_end(self, trainer, module):
        """Logs the epoch."""
        if not trainer.sanity_checking:
            epoch = trainer.current_epoch + 1
            self.reports = self.monitor.log(epoch, step=trainer.global_step)
            print(f"epoch {epoch:>2}   VCI {self.reports['test'].vci:.4f}")


class Network(lightning.LightningModule):
    """A small network whose validation step returns features and logits."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
        self.head = torch.nn.Linear(32, 10)

    def training_step(self, batch, index):
        """Returns the loss."""
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.head(self.backbone(images)), labels)

    def validation_step(self, batch, index):
        """Returns what the callback takes."""
        features = self.backbone(batch[0])
        return {"features": features, "logits": self.head(features)}

    def configure_optimizers(self):
        """Returns the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main(directory="runs/lightning", epochs=10):
    """Trains a small network and returns the reports of the last measurement."""
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(
        torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    )
    lightning.seed_everything(0)
    train, test = torch.utils.data.random_split(data, [0.8, 0.2])
    collapse = Collapse(vci_jax.Monitor(num_classes=10, write=directory))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        check_val_every_n_epoch=5,
        callbacks=[collapse],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Network(),
        torch.utils.data.DataLoader(train, 64, shuffle=True),
        torch.utils.data.DataLoader(test, 64),
    )
    return collapse.reports


if __name__ == "__main__":
    main()
