"""timm and torchvision, where they are installed: their features, transforms and mistakes."""

import numpy as np
import pytest
from PIL import Image

from probes import encoders
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import bicubic
from train import mesh as meshes
from train.config import ConfigError
from train.models.weights import StateDictError

torch = pytest.importorskip("torch", reason="needs torch, which the project does not install")
timm = pytest.importorskip("timm", reason="needs timm (extra torch)")
torchvision = pytest.importorskip("torchvision", reason="needs torchvision (extra torch)")

OPTIONS = TransferConfig()
IMAGES = np.random.default_rng(3).integers(0, 256, (8, 224, 224, 3)).astype(np.uint8)


def network(library, name, **options):
    """A network of a library with every number random, BatchNorm's statistics included."""
    torch.manual_seed(0)
    if library == "timm":
        model = timm.create_model(name, **options)
    else:
        model = torchvision.models.get_model(name, weights=None, **options)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif key.endswith("running_mean") or key in ("cls_token", "pos_embed"):
                value.normal_(0, 0.3)
    return model.eval()


def load(word, path):
    return encoders.load(f"{word}={path}", OPTIONS)


@pytest.mark.parametrize(
    ("library", "name", "word"),
    [
        ("torchvision", "resnet18", "resnet18"),
        ("torchvision", "resnet50", "resnet50"),
        ("timm", "deit_tiny_patch16_224", "deit_ti"),
        ("timm", "vit_tiny_patch16_224", "vit_ti"),
    ],
)
def test_our_network_gives_the_features_of_the_library(library, name, word, tmp_path):
    """To 1e-4 of the largest, from one file that the library has written, in half precision."""
    saved = {k: v.half() if v.is_floating_point() else v for k, v in network(
        library, name).state_dict().items()}  # fmt: skip
    torch.save({"state_dict": {f"module.{k}": v for k, v in saved.items()}}, tmp_path / "w.pth")
    ours, theirs = load(word, tmp_path / "w.pth"), load(f"{library}:{name}", tmp_path / "w.pth")
    assert (ours.data.mean, ours.data.image_size) == (theirs.data.mean, 224)
    np.testing.assert_allclose(ours.data.std, theirs.data.std)
    assert ours.interpolation == theirs.interpolation
    on_mesh = meshes.put_batch({"image": IMAGES}, ours.mesh)["image"]
    got, expected = ours.outputs(on_mesh), theirs.outputs(IMAGES)
    for actual, reference in zip(got, expected, strict=True):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(actual, reference, atol=1e-4 * scale)


@pytest.mark.parametrize("side", [96, 288])
def test_positions_move_as_in_timm(side, tmp_path):
    """To a smaller and to a larger grid than that of the file."""
    name, options = "deit_tiny_patch16_224", TransferConfig(image_size=side)
    torch.save(network("timm", name).state_dict(), tmp_path / "w.pth")
    ours = encoders.load(f"deit_ti={tmp_path / 'w.pth'}", options)
    theirs = encoders.load(f"timm:{name}={tmp_path / 'w.pth'}", options)
    images = np.random.default_rng(3).integers(0, 256, (8, side, side, 3)).astype(np.uint8)
    expected = theirs.features(images)
    got = ours.features(meshes.put_batch({"image": images}, ours.mesh)["image"])
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_heads(library, tmp_path):
    """The number of classes is that of the file; without a head there are features alone."""
    tensors = network(library, "resnet18", num_classes=7).state_dict()
    torch.save(tensors, tmp_path / "seven.pth")
    torch.save({k: v for k, v in tensors.items() if k[:3] != "fc."}, tmp_path / "none.pth")
    seven = load(f"{library}:resnet18", tmp_path / "seven.pth")
    none = load(f"{library}:resnet18", tmp_path / "none.pth")
    assert (seven.num_classes, none.num_classes) == (7, 0)
    assert none.outputs(IMAGES[:2]).logits is None
    np.testing.assert_allclose(none.features(IMAGES[:2]), seven.features(IMAGES[:2]), atol=1e-5)
    torch.save({"fc.weight": tensors["fc.weight"]}, tmp_path / "part.pth")
    with pytest.raises(StateDictError, match="does not fit") as error:
        load(f"{library}:resnet18", tmp_path / "part.pth")
    assert len(str(error.value).splitlines()) <= 10


def test_transforms_are_those_of_timm(tmp_path):
    """The pixels that timm's own transform makes of a photograph, to a grey level."""
    encoder = encoders.load("timm:deit_tiny_patch16_224=random", OPTIONS)
    assert "random, as asked for" in encoder.notes[0]
    model = timm.create_model("deit_tiny_patch16_224")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pixels = np.random.default_rng(0).integers(0, 256, (300, 410, 3)).astype(np.uint8)
    theirs = transform(Image.fromarray(pixels)).permute(1, 2, 0).numpy()
    data = encoder.data
    ours = bicubic(pixels, side=data.image_size, short=data.resize)
    ours = (ours - np.float32(data.mean)) / np.float32(data.std)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_transforms_are_those_of_torchvisions_weights():
    """The default ones, where the name of the file is not that of any."""
    encoder = encoders.load("torchvision:resnet50=random", OPTIONS)
    assert (encoder.data.image_size, encoder.data.resize) == (224, 232)
    assert encoder.interpolation == "bilinear"
    assert "the transform is that of ResNet50_Weights.IMAGENET1K_V2." in encoder.notes
    encoder = encoders.load("torchvision:vit_b_16=random", OPTIONS)
    assert encoder.features(IMAGES[:2]).shape == (2, 768)


def test_mistakes_of_names_and_files(tmp_path):
    for word, message in (
        ("timm:resnet49=w.pth", "timm has no model 'resnet49'. Did you mean resnet"),
        ("torchvision:resnet49=w.pth", "torchvision has no model 'resnet49'. Did you mean"),
        ("timm:resnet50.a1_in2k=w.pth", "no model 'resnet50.a1_in2k'. Did you mean resnet50.a"),
        ("timm:resnet18", r"nothing is downloaded: timm:resnet18=PATH\. They are .*resnet18"),
        ("torchvision:resnet18", r"torchvision:resnet18=PATH\. They are https:.*resnet18-"),
        ("torchvision:squeezenet1_0=w.pth", "no linear layer"),
        ("timm:resnet18=/nowhere.pth", "no such file"),
    ):
        with pytest.raises(ConfigError, match=message):
            encoders.load(word, OPTIONS)


def test_networks_of_other_families(tmp_path):
    """A distilled DeiT, and classifiers whose last layer is deep inside."""
    for library, name, dim in (
        ("timm", "deit_tiny_distilled_patch16_224", 192),
        ("torchvision", "mobilenet_v3_small", 1024),
        ("torchvision", "efficientnet_b0", 1280),
    ):
        torch.save(network(library, name).state_dict(), tmp_path / "w.pth")
        encoder = load(f"{library}:{name}", tmp_path / "w.pth")
        features, logits = encoder.outputs(IMAGES[:2])
        assert features.shape == (2, dim)
        assert logits.shape == (2, 1000)


def test_the_example_sees_what_is_on_two_photographs():
    """ImageNet's palace (698) and daisy (985), through the transform that the example declares."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    from sklearn.datasets import load_sample_images

    encoder = encoders.load("python:examples.efficientnet_lite:lite0", OPTIONS)
    side, short = encoder.data.image_size, encoder.data.resize
    photos = [bicubic(photo, side=side, short=short) for photo in load_sample_images().images]
    features, logits = encoder.outputs(np.stack(photos))
    assert features.shape == (2, 1280)
    assert logits.argmax(axis=1).tolist() == [698, 985]
