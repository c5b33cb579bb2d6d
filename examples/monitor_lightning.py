"""Follow collapse in a Lightning training; the directory is a run to ``python -m probes report``.

pip install lightning scikit-learn
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

import vci_jax


class Collapse(lightning.Callback):
    """Measures the features that ``validation_step`` returns, at every validation."""

    def __init__(self, monitor):
        self.monitor, self.reports = monitor, {}

    def on_validation_batch_end(self, trainer, module, outputs, batch, index, loader=0):
        if not trainer.sanity_checking:  # The check before the training is no measurement.
            self.monitor.add("test", outputs["features"], batch[1], logits=outputs["logits"])

    def on_validation_epoch_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.reports = self.monitor.log(trainer.current_epoch + 1, step=trainer.global_step)
            print(f"epoch {trainer.current_epoch + 1:>2}   VCI {self.reports['test'].vci:.4f}")


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
        self.head = torch.nn.Linear(32, 10)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def validation_step(self, batch, index):
        return {"features": (h := self.backbone(batch[0])), "logits": self.head(h)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main(directory="runs/lightning", epochs=10):
    """Trains a small network and returns the reports of the last measurement."""
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    lightning.seed_everything(0)
    train, test = random_split(TensorDataset(images.float() / 16, labels), [0.8, 0.2])
    collapse = Collapse(vci_jax.Monitor(num_classes=10, write=directory))
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, callbacks=[collapse],
                                max_epochs=epochs, check_val_every_n_epoch=5)  # fmt: skip
    trainer.fit(Network(), DataLoader(train, 64, shuffle=True), DataLoader(test, 64))
    return collapse.reports


if __name__ == "__main__":
    main()
