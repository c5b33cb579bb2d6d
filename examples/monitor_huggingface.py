"""Follow collapse in a training of Hugging Face; the directory is a run to the report page.

pip install torch transformers accelerate scikit-learn
"""

import torch
import transformers
from sklearn.datasets import load_digits

import vci_jax


class Collapse(transformers.TrainerCallback):
    """Measures a ViT's class token on some images, after every epoch that is due."""

    def __init__(self, monitor, images, batch_size=64):
        self.monitor, self.reports = monitor, {}
        self.batches = torch.utils.data.DataLoader(images, batch_size)

    @torch.no_grad()
    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if not self.monitor.due(epoch := round(state.epoch)):
            return
        training = model.training
        model.eval()
        for batch in self.batches:
            tokens = model.vit(batch["pixel_values"].to(model.device)).last_hidden_state
            features = tokens[:, 0]  # the class token, which the classifier reads
            self.monitor.add("test", features, batch["labels"], logits=model.classifier(features))
        model.train(training)
        self.reports = self.monitor.log(epoch, step=state.global_step)
        print(f"epoch {epoch:>2}   VCI {self.reports['test'].vci:.4f}")


def main(directory="runs/huggingface", epochs=8):
    """Trains a small ViT and returns the reports of the last measurement."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    rows = [{"pixel_values": x, "labels": int(y)} for x, y in zip(pixels, labels, strict=True)]
    torch.manual_seed(0)
    size = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 32}
    size |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    network = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=10, **size))
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    settings = transformers.TrainingArguments(
        directory, num_train_epochs=epochs, per_device_train_batch_size=64, learning_rate=3e-3,
        use_cpu=True, remove_unused_columns=False, **quiet,
    )  # fmt: skip
    collapse = Collapse(vci_jax.Monitor(num_classes=10, every=4, write=directory), rows[1408:])
    trainer = transformers.Trainer(network, settings, train_dataset=rows[:1408])
    trainer.add_callback(collapse)
    trainer.train()
    return collapse.reports


if __name__ == "__main__":
    main()
