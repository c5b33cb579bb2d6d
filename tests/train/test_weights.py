"""Public weights: agreement with torch, files of every format, and files that are refused."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weight_files import write_safetensors

from train import models
from train.config import ModelConfig
from train.models import weights
from train.models.weights import StateDictError

SIDE = 64


@pytest.fixture(scope="module")
def torch():
    """The module, where it is installed."""
    return pytest.importorskip("torch", reason="compares with torch where it is installed")


def _theirs(torch, name):
    """A network of theirs with every number random, BatchNorm's statistics included."""
    from benchmarks.torch_models import ResNet, ViT

    torch.manual_seed(0)
    model = {
        "resnet18": partial(ResNet, (2, 2, 2, 2), False),
        "resnet50": partial(ResNet, (3, 4, 6, 3), True),
        "deit_ti": partial(ViT, 192, 12, 3, side=SIDE),
    }[name]()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.ndim == 1 or key in ("cls_token", "pos_embed"):
                value.normal_(1.0 if key.endswith("weight") else 0.0, 0.3)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "deit_ti"])
def test_forward_pass_agrees_with_torch(torch, name, tmp_path):
    """Logits and features to 1e-4 of their size, weights having gone through a file."""
    theirs = _theirs(torch, name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = models.build(ModelConfig(name=name), 1000)
    variables = _load(tmp_path / "weights.pth", model, SIDE)
    images = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)
    ours = jax.jit(partial(model.apply, train=False))(variables, images)
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2))
    for actual, reference in zip(ours, expected, strict=True):
        scale = np.abs(reference.numpy()).max()
        assert scale > 0.1
        np.testing.assert_allclose(actual, reference, atol=1e-4 * scale)


@pytest.fixture(scope="module")
def vit():
    """A tiny model, and a state dict that fits it."""
    model = models.build(ModelConfig(name="_vit_nano", patch=8), 3)
    rng = np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, 16), "pos_embed": (1, 5, 16)}
    shapes |= {"patch_embed.proj.weight": (16, 3, 8, 8), "patch_embed.proj.bias": (16,)}
    shapes |= {"norm.weight": (16,), "norm.bias": (16,)}
    shapes |= {"head.weight": (3, 16), "head.bias": (3,)}
    for index in range(2):
        layers = {"attn.qkv": (48, 16), "attn.proj": (16, 16)}
        layers |= {"mlp.fc1": (64, 16), "mlp.fc2": (16, 64), "norm1": (16,), "norm2": (16,)}
        for name, shape in layers.items():
            shapes[f"blocks.{index}.{name}.weight"] = shape
            shapes[f"blocks.{index}.{name}.bias"] = shape[:1]
    return model, {k: rng.normal(size=shape).astype(np.float32) for k, shape in shapes.items()}


def _load(path, model, side=16):
    return weights.fill(weights.read(path)[0], model, (side, side, 3), str(path))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_safetensors(vit, tmp_path, dtype):
    """Every number arrives where it belongs, as float32."""
    model, tensors = vit
    tensors = {name: value.astype(dtype) for name, value in tensors.items()}
    params = _load(write_safetensors(tmp_path / "w.safetensors", tensors), model)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    kernel = tensors["blocks.1.attn.qkv.weight"].astype(np.float32)
    np.testing.assert_array_equal(params["block2"]["qkv"]["kernel"], kernel.T)
    patches = tensors["patch_embed.proj.weight"].astype(np.float32)
    np.testing.assert_array_equal(params["patches"]["kernel"][2, 5, 1], patches[:, 1, 2, 5])
    position = tensors["pos_embed"].astype(np.float32)
    np.testing.assert_array_equal(params["position"], position[0])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torchs_files(torch, vit, tmp_path, legacy, wrapper):
    """Both formats, alone and wrapped with the prefix of data-parallel training, read alike."""
    model, tensors = vit
    expected = _load(write_safetensors(tmp_path / "w", tensors), model)
    prefix = "module." if wrapper else ""
    saved = OrderedDict((prefix + k, torch.tensor(v)) for k, v in tensors.items())
    # A view into a larger storage, a transposed one, and a parameter.
    saved[prefix + "head.bias"] = torch.cat([torch.zeros(5), saved[prefix + "head.bias"]])[5:]
    saved[prefix + "head.weight"] = saved[prefix + "head.weight"].t().contiguous().t()
    saved[prefix + "norm.bias"] = torch.nn.Parameter(saved[prefix + "norm.bias"])
    if wrapper:
        saved = {wrapper: saved, "epoch": 300, "rates": [0.1, 0.01]}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    actual = _load(tmp_path / "w.pth", model)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_what_does_not_fit_is_listed_by_name(vit, tmp_path):
    """Missing, unexpected and misshapen tensors, all of them at once."""
    model, tensors = vit
    tensors = dict(tensors)
    tensors["dist_token"] = tensors.pop("norm.bias")
    tensors["head.weight"] = np.zeros((1000, 16), np.float32)
    with pytest.raises(StateDictError) as error:
        _load(write_safetensors(tmp_path / "w", tensors), model)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "missing: norm.bias",
        "unexpected: dist_token",
        "shape: head.weight is (1000, 16), the model has (3, 16)",
    ]


def test_counters_of_batchnorm_are_not_unexpected(tmp_path):
    """The one kind of tensor that has no counterpart, and needs none."""
    model = models.build(ModelConfig(name="_resnet6", width=2, stem="cifar"), 3)
    counter = {"bn1.num_batches_tracked": np.zeros((), np.float32)}
    with pytest.raises(StateDictError, match=r"missing: conv1\.weight") as error:
        _load(write_safetensors(tmp_path / "w", counter), model)
    assert "unexpected" not in str(error.value)
    assert "missing: layer2.0.downsample.1.running_var" in str(error.value)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "holds no state dict.*list"),
        ({"epoch": 3}, r"holds no state dict.*\['epoch'\]"),
        ({"model": {}, "state_dict": [1]}, "holds no state dict"),
        ({1: np.ones(2)}, "holds no state dict"),
    ],
)
def test_trees_without_weights_are_refused(tmp_path, monkeypatch, tree, message):
    """Each with what it is."""
    monkeypatch.setattr(weights.files, "read_tree", lambda path: tree)
    with pytest.raises(StateDictError, match=message):
        weights.read(tmp_path / "weights.pth")


def test_a_tree_that_holds_itself_is_refused(tmp_path, monkeypatch):
    """A few bytes of a pickle make one, in which the model is under ``model`` without end."""
    tree = {}
    tree["model"] = tree
    monkeypatch.setattr(weights.files, "read_tree", lambda path: tree)
    with pytest.raises(StateDictError, match="holds no state dict"):
        weights.read(tmp_path / "weights.pth")


def test_a_file_cut_short_is_refused(vit, tmp_path):
    """At whatever byte the download stopped."""
    _, tensors = vit
    path = write_safetensors(tmp_path / "weights.safetensors", tensors)
    data = path.read_bytes()
    for cut in np.linspace(20, len(data) - 1, 12, dtype=int):
        path.write_bytes(data[:cut])
        with pytest.raises(StateDictError, match="not a readable safetensors file"):
            weights.read(path)


def test_only_known_models_have_public_weights():
    """Another kind of network is refused."""
    from flax import linen as nn

    with pytest.raises(ValueError, match="no public weights for a Dense"):
        weights.fill({}, nn.Dense(3), (4, 4, 3), "none")
