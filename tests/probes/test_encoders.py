"""Every kind of model by its word: files of weights, libraries, functions, saved features."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from weight_files import drawn, read_tree, small_networks, write_pth, write_safetensors

from probes import __main__ as entry
from probes import encoders
from probes.encoders import run, words
from probes.encoders.config import TransferConfig
from probes.encoders.encoder import bicubic, describe_transform
from probes.transfer import runner, task_features
from probes.transfer.tasks import Task
from train import models
from train.config import ConfigError, DataConfig, ModelConfig
from train.models import public, unwrap, weights
from train.models.weights import StateDictError
from vci_jax.probe import selection

IMAGES = np.random.default_rng(3).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
OPTIONS = TransferConfig()


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch):
    monkeypatch.setattr(public, "NETWORKS", small_networks())
    monkeypatch.setattr(weights.files, "read_tree", read_tree)


def load(word, path, **options):
    return encoders.load(f"{word}={path}", TransferConfig(**options))


def on_mesh(encoder, images=IMAGES):
    from train import mesh as meshes

    return meshes.put_batch({"image": images}, encoder.mesh)["image"]


@pytest.mark.parametrize("word", ["vit_nano", "resnet6"])
def test_features_are_those_of_the_network_on_normalised_pixels(word, tmp_path):
    tensors = drawn(word)
    encoder = load(word, write_safetensors(tmp_path / "w.safetensors", tensors))
    family, name, dim, _ = public.NETWORKS[word]
    model = models.build(ModelConfig(name=name), 5)
    variables = weights.fill(tensors, model, (32, 32, 3), "w")
    pixels = (np.float32(IMAGES) - np.float32(family.mean)) / np.float32(family.std)
    logits, features = jax.jit(partial(model.apply, train=False))(variables, pixels)
    got = encoder.outputs(on_mesh(encoder))
    assert features.shape == (8, dim)
    assert np.mean(np.std(np.asarray(features), axis=0) > 0) > 0.3
    np.testing.assert_allclose(got.features, features, atol=1e-5)
    np.testing.assert_allclose(got.logits, logits, atol=1e-5)
    np.testing.assert_allclose(encoder.features(on_mesh(encoder)), features, atol=1e-5)
    assert encoder.num_classes == 5
    assert encoder.data.mean == family.mean


WRAPPERS = [
    ("module.", ""),
    ("_orig_mod.", "state_dict"),
    ("model.backbone.", "model"),
    ("module._orig_mod.encoder.", "model_ema"),
    ("encoder.module.model.", "teacher"),
    ("backbone.", "model.state_dict"),
    ("net.", ""),
]


def test_keys_and_prefixes_change_nothing(tmp_path):
    """And the user is told of them; data-parallel training's module. goes without a word."""
    for word, wrappers in (("vit_nano", WRAPPERS), ("resnet6", WRAPPERS[2:3])):
        tensors = drawn(word)
        plain = load(word, write_pth(tmp_path / "plain.pth", tensors))
        for prefix, key in wrappers:
            tree = {prefix + name: value for name, value in tensors.items()}
            for part in reversed(key.split(".") if key else ()):
                tree = {part: tree, "epoch": 3}
            wrapped = load(word, write_pth(tmp_path / "wrapped.pt", tree))
            assert wrapped.identity == plain.identity, prefix
            assert wrapped.num_classes == 5
            said, removed = " ".join(wrapped.notes), prefix.removeprefix("module.")
            assert not removed or f"the prefix {removed!r} was removed" in said
            assert not key or f"under {key!r}" in said


def test_averaged_weights_are_preferred_and_said(tmp_path):
    tensors = drawn("vit_nano")
    other = {name: 2 * value for name, value in tensors.items()}
    tree = {"model": other, "model_ema": tensors, "epoch": 3}
    chosen = load("vit_nano", write_pth(tmp_path / "a.pth", tree))
    assert chosen.identity == load("vit_nano", write_pth(tmp_path / "b.pth", tensors)).identity
    assert "under 'model_ema'" in " ".join(chosen.notes)


@pytest.mark.parametrize("write", [write_pth, write_safetensors])
@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_half_precision_is_read_as_it_is(write, dtype, tmp_path):
    tensors = {name: value.astype(dtype) for name, value in drawn("resnet6").items()}
    exact = {name: value.astype(np.float32) for name, value in tensors.items()}
    half = load("resnet6", write(tmp_path / "half", tensors))
    assert half.identity == load("resnet6", write_pth(tmp_path / "whole", exact)).identity


@pytest.mark.parametrize("word", ["vit_nano", "resnet6"])
def test_without_a_head_there_are_no_logits(word, tmp_path):
    """The features are the same; a head of another number of classes is taken as it is."""
    tensors, other = drawn(word), drawn(word, classes=7)
    head = public.NETWORKS[word][0].head
    body = {name: value for name, value in tensors.items() if not name.startswith(f"{head}.")}
    headless = load(word, write_pth(tmp_path / "body.pth", body))
    whole = load(word, write_pth(tmp_path / "whole.pth", tensors))
    seven = load(word, write_pth(tmp_path / "seven.pth", body | {
        name: other[name] for name in (f"{head}.weight", f"{head}.bias")
    }))  # fmt: skip
    got = headless.outputs(on_mesh(headless))
    assert (headless.num_classes, got.logits, seven.num_classes) == (0, None, 7)
    for encoder in (whole, seven):
        found = encoder.outputs(on_mesh(encoder))
        np.testing.assert_allclose(got.features, found.features, atol=1e-5)
    assert found.logits.shape == (8, 7)


def test_a_head_outside_the_backbone_is_its_head_if_it_fits(tmp_path):
    """A linear layer of the right width is; a projection head of pretraining is left out."""
    tensors = drawn("vit_nano")
    outside = ("head.weight", "head.bias")
    tree = {("" if name in outside else "backbone.") + name: v for name, v in tensors.items()}
    assert load("vit_nano", write_pth(tmp_path / "a.pth", tree)).num_classes == 5
    tree = {name: value for name, value in tree.items() if name not in outside}
    tree |= {"head.mlp.0.weight": np.zeros((4, 16), np.float32)}
    pretrained = load("vit_nano", write_pth(tmp_path / "b.pth", {"teacher": tree}))
    assert pretrained.num_classes == 0
    assert "1 tensors beside the network are left out: mlp" not in " ".join(pretrained.notes)
    assert "are left out: head.mlp.0.weight." in " ".join(pretrained.notes)


def test_positions_move_to_another_grid(tmp_path):
    """Constants stay, the class token's row too; the note says it."""
    tensors = drawn("vit_nano", side=64)
    tensors["pos_embed"][:, 1:] = 0.25
    path = write_pth(tmp_path / "w.pth", tensors)
    assert load("vit_nano", path).data.image_size == 64
    moved, note = public.move_positions(tensors["pos_embed"][0], (4, 4), (6, 6))
    assert moved.shape == (37, 16)
    np.testing.assert_array_equal(moved[0], tensors["pos_embed"][0, 0])
    np.testing.assert_allclose(moved[1:], 0.25, rtol=1e-6)
    encoder = load("vit_nano", path, image_size=96)
    assert note in encoder.notes
    assert (encoder.data.image_size, encoder.data.resize) == (96, round(71 * 1.5))
    images = np.zeros((8, 96, 96, 3), np.uint8)
    assert encoder.features(on_mesh(encoder, images)).shape == (8, 16)
    with pytest.raises(StateDictError, match="no multiple of the patch of 16 pixels"):
        load("vit_nano", path, image_size=100)


def test_positions_are_those_of_torchs_resampling():
    torch = pytest.importorskip("torch", reason="compares with torch where it is installed")
    rng = np.random.default_rng(0)
    for old, new in (((14, 14), (24, 24)), ((24, 24), (14, 14)), ((4, 4), (6, 3))):
        position = rng.normal(size=(old[0] * old[1] + 1, 8)).astype(np.float32)
        moved, _ = public.move_positions(position, old, new)
        grid = torch.tensor(position[1:]).reshape(1, *old, 8).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(
            grid, size=new, mode="bicubic", antialias=True, align_corners=False
        )
        expected = expected.permute(0, 2, 3, 1).reshape(-1, 8).numpy()
        np.testing.assert_allclose(moved[1:], expected, atol=1e-5)


def refused(word, path, match):
    with pytest.raises(StateDictError, match=match) as error:
        load(word, path)
    assert len(str(error.value).splitlines()) <= 10
    return str(error.value)


def test_what_cannot_be_loaded_says_why(tmp_path):
    tensors = drawn("vit_nano")
    broken = tensors | {"norm.bias": np.full(16, np.nan, np.float32)}
    refused("vit_nano", write_pth(tmp_path / "n", broken), r"16 NaN or infinite .* norm\.bias")
    whole = write_safetensors(tmp_path / "whole.safetensors", tensors).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    refused("vit_nano", tmp_path / "cut.safetensors", "not a readable safetensors file")
    refused("vit_s", tmp_path / "none.pth", "(?s)No such file.*timm/vit_small_patch16_224")
    with pytest.raises(ConfigError, match=r"vit_s is the name of a network.*vit_s=PATH"):
        encoders.load("vit_s", OPTIONS)
    token = np.zeros((1, 1, 192), np.float32)
    distilled = {"cls_token": token, "dist_token": token}
    said = refused("deit_ti", write_pth(tmp_path / "d", distilled), "a distillation token")
    assert "timm:deit_tiny_distilled_patch16_224=" in said
    two = {f"{name}.{k}": v for name in ("student", "other") for k, v in tensors.items()}
    refused("vit_nano", write_pth(tmp_path / "two", two), "several networks")


@pytest.mark.parametrize("word", ["resnet18", "resnet50", "vit_ti"])
def test_another_architecture_is_recognised(word):
    """By the names and shapes of its tensors alone."""
    _, name, _, _ = public.NETWORKS[word]
    shapes = weights.shapes(models.build(ModelConfig(name=name), 1000), (224, 224, 3))
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    names, cause = public.likely_cause(tensors)
    assert word in names
    assert f"it is a {names[0]}" in cause


def test_a_mismatch_is_short_and_has_a_cause(tmp_path):
    nano, six = drawn("vit_nano"), drawn("resnet6")
    said = refused("resnet6", write_pth(tmp_path / "a.pth", nano), "Likely cause")
    assert "it is a vit_nano" in said.splitlines()[-1]
    said = refused("vit_nano", write_pth(tmp_path / "b.pth", six), "Likely cause")
    assert "is not a vit_nano: of its tensors, 30 missing, 32 unexpected, 0 shape" in said
    assert "a ResNet of another" in said.splitlines()[-1]


def test_causes_by_names():
    def cause(*names, shape=(64, 64, 3, 3)):
        return public.likely_cause(dict.fromkeys(names, np.zeros(shape, np.float32)))[1]

    assert "Hugging Face" in cause("vit.embeddings.patch_embeddings.projection.weight")
    assert "torchvision:vit_b_16" in cause("conv_proj.weight")
    assert "another kind" in cause("features.0.0.weight")
    assert "ResNeXt" in cause("layer1.0.conv1.weight", "layer1.0.conv2.weight")
    assert "LayerScale" in cause("blocks.0.attn.qkv.weight", "blocks.0.ls1.gamma")
    assert "width 64 and depth 1" in cause("blocks.0.attn.qkv.weight")


def test_unknown_words_list_the_kinds(tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"")
    for word, begins in (
        ("resnet51=w.pth", "'resnet51=w.pth' is neither a model nor"),
        ("nope", "'nope'"),
    ):
        with pytest.raises(ConfigError) as error:
            encoders.load(word, OPTIONS)
        assert str(error.value).startswith(begins)
        assert all(example in str(error.value) for example in words.KINDS)
    with pytest.raises(ConfigError, match=r"say what it is, as in resnet50=.*w\.pth"):
        encoders.load(str(tmp_path / "w.pth"), OPTIONS)
    with pytest.raises(ConfigError, match="no such file or directory"):
        encoders.load("features:nowhere", OPTIONS)
    assert entry.main(["transfer"]) == 2
    assert "no model given" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_is_named_with_the_command(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library} is not installed .*pip install"):
        encoders.load(f"{library}:resnet18=w.pth", OPTIONS)


MODULE = '''
import numpy as np

def encode(images):
    """Mean and deviation of each channel, and their sums as logits."""
    pixels = images.astype(np.float32)
    features = np.concatenate([pixels.mean((1, 2)), pixels.std((1, 2))], axis=1)
    return features, features[:, :2] * 3

encode.image_size, encode.resize, encode.name = 16, 20, "means"

def bare(images):
    return images.reshape(len(images), -1)[:, ::997].astype(np.float64)

def wrong(images):
    return images

def headed(images):
    return None, np.ones((len(images), 2))

def fails(images):
    raise RuntimeError("no such layer")
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_encoders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    sys.modules.pop("my_encoders", None)
    yield
    sys.modules.pop("my_encoders", None)


@pytest.mark.usefixtures("module")
def test_a_function_declares_its_transform():
    means = encoders.load("python:my_encoders:encode", OPTIONS)
    assert (means.data.image_size, means.data.resize, means.name) == (16, 20, "means")
    assert means.num_classes == 2
    bare = encoders.load("python:my_encoders:bare", OPTIONS)
    assert (bare.data.image_size, bare.data.resize, bare.num_classes) == (224, 256, 0)
    for name, message in (
        ("wrong", r"shapes \[\(2, 224, 224, 3\)\] for 2 images"),
        ("headed", r"shapes \[\(2, 2\)\] for 2 images"),
        ("fails", "failed on two black images of 224 pixels: RuntimeError: no such layer"),
        ("absent", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=message):
            encoders.load(f"python:my_encoders:{name}", OPTIONS)
    with pytest.raises(ConfigError, match="names no function"):
        encoders.load("python:my_encoders", OPTIONS)


@pytest.fixture
def photos(tmp_path):
    """Three classes of 20 images in a flat folder, told apart by their colours."""
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for name, low in (("dark", 0), ("dim", 40), ("light", 150)):
        (root / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(low, low + 100, (24, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root


@pytest.mark.usefixtures("module")
def test_the_commands_take_every_kind(photos, tmp_path, monkeypatch, capsys):
    """A file of weights, a function and saved features, on one folder; logits are kept."""
    whole = partial(selection.sweep, values=np.geomspace(1e-2, 1e3, 6))
    monkeypatch.setattr(runner.selection, "sweep", whole)
    vit = write_pth(tmp_path / "w.pth", drawn("vit_nano"))
    files = sorted(photos.rglob("*.png"))  # As ImageFolder lists them.
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in files])
    np.savez(
        tmp_path / "mine.npz",
        features=pixels.mean((1, 2)),
        labels=[("dark", "dim", "light").index(path.parent.name) for path in files],
    )
    given = ["python:my_encoders:encode", f"features:{tmp_path / 'mine.npz'}"]
    options = ["--data", f"folder:{photos}", "--out", str(tmp_path / "out")]
    assert entry.main(["transfer", *given, *options]) == 0
    said = capsys.readouterr().out
    assert "results go to" in said
    found = {}
    for path in (tmp_path / "out").glob("*/transfer.jsonl"):
        (row,) = map(json.loads, path.read_text().splitlines())
        assert (row["train_size"], row["test_size"], row["num_classes"]) == (48, 12, 3)
        found[path.parent.name.partition("-")[0]] = row["score"]
    assert found.keys() == {"means", "features"}
    assert found["means"] == found["features"] == 1, found
    assert entry.main(["features", f"vit_nano={vit}", given[0], *options]) == 0
    for pattern, dim in (("means", 2), ("vit_nano-*", 5)):
        files = [*(tmp_path / "out").glob(f"{pattern}/features/*/logits.npy")]
        assert sorted(np.load(file).shape for file in files) == [(12, dim), (48, dim)]


@pytest.mark.usefixtures("module")
def test_kept_logits_are_those_of_the_rows(photos, tmp_path):
    encoder = encoders.load("python:my_encoders:encode", OPTIONS)
    task = Task("photos", f"folder:{photos}", test="")
    planned = task_features.plan(encoder, task)
    made = task_features.make(encoder, task, planned, OPTIONS, root=tmp_path / "f")
    for name, samples in made.splits.items():
        np.testing.assert_array_equal(made.logits[name], 3 * samples.features[:, :2])
    again = task_features.plan(encoder, task, logits=False)
    made = task_features.make(encoder, task, again, OPTIONS, root=tmp_path / "f")
    assert made.logits == {}
    assert again.depends_on != planned.depends_on


def test_saved_features_must_be_those_of_the_images(photos, tmp_path):
    """Labels in another order than the images are refused; without images they are probed as is."""
    labels = np.arange(60)[::-1] % 3
    np.savez(tmp_path / "odd.npz", features=np.eye(60, 4), labels=labels)
    encoder = encoders.load(f"features:{tmp_path / 'odd.npz'}", OPTIONS)

    def make(task):
        planned = task_features.plan(encoder, task)
        return task_features.make(encoder, task, planned, OPTIONS, root=tmp_path)

    with pytest.raises(ConfigError, match=r"(?s)rows of train.*order of the images"):
        make(Task("photos", f"folder:{photos}", test=""))
    (task,) = runner.tasks_of([f"features:{tmp_path / 'odd.npz'}"], OPTIONS)
    made = make(task)
    assert [len(split.labels) for split in made.splits.values()] == [48, 12]
    assert made.num_classes == 3
    with pytest.raises(ConfigError, match="no network to compute others"):
        encoder.features(None)
    folder = tmp_path / "splits"
    folder.mkdir()
    np.savez(folder / "train.npz", features=np.eye(30, 4), labels=labels[:30])
    np.savez(folder / "val.npz", features=np.eye(9, 4), labels=labels[:9])
    encoder = encoders.load(f"features:{folder}", OPTIONS)
    assert [len(split.labels) for split in make(task).splits.values()] == [30, 9]
    (folder / "val.npz").unlink()
    with pytest.raises(ConfigError, match="no features of train and test"):
        make(task)


def test_a_run_keeps_its_filter(tmp_path):
    """The transform of its encoder, and the identity of its features, have it."""
    for kind in ("bilinear", "bicubic"):
        data = DataConfig(image_size=24, interpolation=kind)
        found = run._transform(tmp_path, data, OPTIONS)
        assert found.interpolation == kind
        assert describe_transform(found, found.interpolation).get("interpolation") == (
            None if kind == "bilinear" else "bicubic"
        )


def test_bicubic_is_that_of_torchvisions_transforms():
    """Resize, then crop: by hand with Pillow, for an image that is wide and one that is high."""
    rng = np.random.default_rng(0)
    for shape in ((30, 41, 3), (50, 20, 3)):
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        got = bicubic(pixels, side=16, short=20)
        assert got.shape == (16, 16, 3)
        image = Image.fromarray(pixels)
        size = (27, 20) if shape[1] > shape[0] else (20, 50)
        left, top = round((size[0] - 16) / 2), round((size[1] - 16) / 2)
        whole = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(got, whole[top : top + 16, left : left + 16])
    assert bicubic(pixels[..., :1], side=16, short=16).shape == (16, 16)


def test_the_weights_of_one_network_among_others():
    """Names are compared from their ends on, whatever stands before them."""
    wanted = {"conv1.weight", "layer1.0.conv1.weight", "fc.weight"}
    tensors = {f"a.b.{name}": np.ones(2) for name in wanted} | {"a.c.fc.weight": np.ones(3)}
    assert unwrap._prefix(tensors, wanted, None) == "a.b."
    assert unwrap._prefix({"x": np.ones(1)}, wanted, None) == ""
