"""Features on disk, and the network that makes them: resumable, never stale, exact on 8 devices."""

import fcntl
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from probed_run import make_run, moved

import configs
from probes.encoders import identity
from probes.encoders import run as encoder_of_run
from probes.encoders.config import TransferConfig
from probes.transfer import features, task_features
from probes.transfer.tasks import Task
from train import data, program
from train import mesh as meshes
from train.config import ConfigError, DataConfig, EvalConfig
from train.data import digest
from train.data.arrays import Arrays
from train.data.sources import Unreadable
from train.errors import LockedError
from train.step import predict
from train.workdir import record_start
from vci_jax.probe import selection
from vci_jax.probe.saved import renumber

ROWS = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
LABELS = np.arange(23, dtype=np.int32) % 4


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


class Counted:
    """Computes rows of ROWS, and notes which it was asked for."""

    def __init__(self, killed_at=None):
        self.asked, self._killed_at = [], killed_at

    def __call__(self, rows):
        if rows.start == self._killed_at:
            raise Killed
        self.asked.append(rows)
        return ROWS[rows.start : rows.stop], LABELS[rows.start : rows.stop]


def keep(root, compute, about="a", size=23, **options):
    return features.keep(root, {"about": about}, size, compute, shard_rows=5, **options)


def same(found):
    return np.array_equal(found.features, ROWS) and np.array_equal(found.labels, LABELS)


def test_a_kill_costs_the_shard_it_was_in(tmp_path):
    """The rows before it are neither lost nor computed again, and the result is the whole."""
    with pytest.raises(Killed):
        keep(tmp_path, Counted(killed_at=10))
    second, seen = Counted(), []
    found = keep(tmp_path, second, progress=seen.append)
    assert second.asked == [range(10, 15), range(15, 20), range(20, 23)]
    assert seen == [10, 15, 20, 23]
    assert same(found)
    assert isinstance(found.features, np.memmap)
    assert sorted(path.name for path in found.directory.iterdir()) == [
        "features.npy",
        "labels.npy",
        "lock",
        "meta.json",
    ]
    third = Counted()
    assert same(keep(tmp_path, third))
    assert third.asked == []


def test_nothing_stale_is_reused(tmp_path):
    """Other things that features depend on, or another number of rows: another directory."""
    first = keep(tmp_path, Counted())
    for changes in ({"about": "b"}, {"size": 22}):
        compute = Counted()
        other = keep(tmp_path, compute, **changes)
        assert other.directory != first.directory
        assert compute.asked


@pytest.mark.parametrize("damage", ["truncated", "flipped", "linked", "torn", "foreign", "missing"])
def test_damage_is_met_by_computing_again(tmp_path, damage):
    directory = keep(tmp_path, Counted()).directory
    if damage == "truncated":
        os.truncate(directory / "features.npy", 200)
    elif damage == "flipped":
        content = bytearray((directory / "features.npy").read_bytes())
        content[-7] ^= 1
        (directory / "features.npy").write_bytes(content)
    elif damage == "linked":
        (directory / "features.npy").rename(tmp_path / "elsewhere.npy")
        (directory / "features.npy").symlink_to(tmp_path / "elsewhere.npy")
        before = (tmp_path / "elsewhere.npy").read_bytes()
    elif damage == "torn":
        (directory / "meta.json").write_text('{"depends')
    elif damage == "foreign":
        meta = json.loads((directory / "meta.json").read_text())
        meta["depends_on"]["about"] = "b"
        (directory / "meta.json").write_text(json.dumps(meta))
    else:
        (directory / "labels.npy").unlink()
    compute, said = Counted(), []
    assert same(keep(tmp_path, compute, say=said.append))
    assert sum(map(len, compute.asked)) == 23
    assert "is damaged" in said[0]
    if damage == "linked":
        assert (tmp_path / "elsewhere.npy").read_bytes() == before


def test_progress_that_fits_no_file_starts_over(tmp_path):
    with pytest.raises(Killed):
        keep(tmp_path, Counted(killed_at=10))
    (directory,) = tmp_path.iterdir()
    os.truncate(directory / "features.npy", 150)
    compute = Counted()
    assert same(keep(tmp_path, compute))
    assert compute.asked[0] == range(5)


def test_a_flipped_bit_in_an_unfinished_directory_costs_its_shard(tmp_path):
    """The rows before it are kept."""
    with pytest.raises(Killed):
        keep(tmp_path, Counted(killed_at=15))
    (directory,) = tmp_path.iterdir()
    labels = np.load(directory / "labels.npy", mmap_mode="r+")
    labels[7] ^= 1
    labels.flush()
    compute = Counted()
    assert same(keep(tmp_path, compute))
    assert compute.asked[0] == range(5, 10)


def test_two_processes_do_not_fill_one_directory(tmp_path):
    directory = keep(tmp_path, Counted()).directory
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another process is computing the features in"):
            keep(tmp_path, Counted())
    assert same(keep(tmp_path, Counted()))


@pytest.mark.parametrize("devices", [1, 8])
def test_any_function_of_images_gives_exact_rows(devices):
    """21 images in batches of 8, shards of 10: padding never shows, on 1 device as on 8."""
    images = np.random.default_rng(1).integers(0, 256, (21, 4, 4, 3)).astype(np.uint8)
    records = Arrays(images, np.arange(21, dtype=np.int32), "some")
    split = data.Split(records, (4, 4, 3), Unreadable(0))
    mesh = meshes.make_mesh(devices=jax.devices()[:devices])
    shapes = set()

    def feature_fn(batch):
        shapes.add(batch.shape)
        return jnp.mean(batch.astype(jnp.float32), axis=(1, 2))

    config = DataConfig(source="some")
    compute = features.extract(feature_fn, split, config, mesh=mesh, batch_size=7)
    parts = [compute(range(start, min(start + 10, 21))) for start in (0, 10, 20)]
    found, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)), rtol=1e-6)
    assert np.array_equal(labels, np.arange(21))
    assert shapes == {(7 if devices == 1 else 8, 4, 4, 3)}


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten images, in a flat folder."""
    rng = np.random.default_rng(2)
    for name in ("dark", "light"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(10):
            low = 0 if name == "dark" else 128
            pixels = rng.integers(low, low + 128, (9, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_broken_images_have_no_label(photos):
    (photos / "dark" / "3.png").write_bytes(b"torn")
    config = DataConfig(source=f"folder:{photos}", image_size=4, max_unreadable=1)
    dataset = data.load(config)
    names = [dataset.train.records.name_of(i) for i in range(16)]
    compute = features.extract(
        lambda images: jnp.mean(images.astype(jnp.float32), axis=(1, 2)),
        dataset.train,
        config,
        mesh=meshes.make_mesh(devices=jax.devices()[:1]),
        batch_size=4,
    )
    found, labels = compute(range(16))
    broken = [i for i, name in enumerate(names) if name.endswith("dark/3.png")]
    assert np.flatnonzero(labels == -1).tolist() == broken
    assert not found[broken].any()
    assert found[labels >= 0].all()


def test_the_identity_of_images_is_their_content(photos):
    """Pixels in memory by their bytes; files by name and bytes; labels by what they mean."""
    images = np.zeros((2, 4, 4, 1), np.uint8)
    base = Arrays(images, np.array([0, 1], np.int32), "a")
    other = images.copy()
    other[1, 0, 0, 0] = 1
    digests = [
        identity.digest_records(base, ("x", "y")),
        identity.digest_records(base._replace(images=other), ("x", "y")),
        identity.digest_records(base._replace(labels=np.array([1, 0], np.int32)), ("x", "y")),
        identity.digest_records(base, ("y", "x")),
    ]
    assert len(set(digests)) == 4
    assert identity.digest_records(base._replace(title="b"), ("x", "y")) == digests[0]

    def of_folder():
        dataset = data.load(DataConfig(source=f"folder:{photos}", image_size=4))
        return identity.digest_records(dataset.train.records, dataset.classes)

    before = of_folder()
    assert of_folder() == before
    path = data.load(DataConfig(source=f"folder:{photos}", image_size=4)).train.records.paths()[3]
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert of_folder() == before
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert of_folder() != before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Saved at steps 0 and 3 by a network on digits; the best is that of step 0."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    return workdir, make_run(workdir, steps=(0, 3))


def test_features_of_a_checkpoint_are_those_of_the_network(run, tmp_path):
    """On 8 devices, stored in shards, as one forward pass on one device gives; rounding apart."""
    workdir, trained = run
    options = TransferConfig(batch_size=100, shard_rows=130)
    probed = encoder_of_run.load(workdir, options)
    assert (probed.step, probed.test["accuracy"]) == (3, 0.72)
    assert probed.mesh.size == 8
    task = Task("digits", "digits", test="")
    planned = task_features.plan(probed, task)
    found = task_features.make(probed, task, planned, options, root=tmp_path)
    state = trained.program.init_state(jax.random.key(3))
    state = state._replace(batch_stats=jax.tree.map(moved, state.batch_stats))
    config = trained.config
    step = jax.jit(
        lambda s, x: predict(program.build_spec(config, 10, 9), s, x)[1],
        device=None,
    )
    records = trained.dataset.test.records
    local = jax.device_put(jax.device_get(state._replace(opt_state=(), ema={})), jax.devices()[0])
    expected = np.asarray(step(local, jax.device_put(records.images, jax.devices()[0])))
    assert (expected.std(axis=0) > 0).sum() > 8, "features that say something"
    got = found.splits["test"]
    # float32 through six layers: a few roundings of the largest feature.
    np.testing.assert_allclose(got.features, expected, atol=1e-5 * np.abs(expected).max())
    assert np.array_equal(got.labels, records.labels)
    assert len(found.splits["train"].labels) == 1437


def test_a_checkpoint_is_chosen_by_step_or_by_its_metric(run):
    workdir, _ = run
    first = encoder_of_run.load(workdir, TransferConfig(step=0))
    assert encoder_of_run.load(workdir, TransferConfig(best=True)).step == first.step == 0
    last = encoder_of_run.load(workdir, TransferConfig())
    assert first.identity != last.identity
    with pytest.raises(ConfigError, match=r"--step is 5, .* has the checkpoints 0, 3"):
        encoder_of_run.load(workdir, TransferConfig(step=5))


def test_nothing_changes_in_a_work_directory(run):
    """A run may be at work there."""
    workdir, _ = run
    before = {path: path.stat().st_mtime_ns for path in sorted(workdir.rglob("*"))}
    encoder_of_run.load(workdir, TransferConfig())
    assert {path: path.stat().st_mtime_ns for path in sorted(workdir.rglob("*"))} == before


def test_the_moving_average_is_probed_where_it_is_measured(run, tmp_path):
    """eval.averaged decides; here the average is that before the running means were moved."""
    workdir = tmp_path / "averaged"
    make_run(workdir, eval=EvalConfig(averaged=True))
    averaged = encoder_of_run.load(workdir, TransferConfig())
    plain = encoder_of_run.load(run[0], TransferConfig(step=0))
    assert averaged.identity["model"] == plain.identity["model"]
    assert averaged.identity["variables"] != plain.identity["variables"]


def test_the_transform_is_the_networks(run):
    """A network of 8x8 images gets everything at 8x8, ink of 16 as its brightest; or as told."""
    workdir, _ = run
    probed = encoder_of_run.load(workdir, TransferConfig())
    assert (probed.data.image_size, probed.data.resize, probed.peak) == (8, 8, 16)
    assert (probed.data.mean, probed.data.crop) == ((4.88,), "none")
    larger = encoder_of_run.load(workdir, TransferConfig(image_size=12))
    assert (larger.data.image_size, larger.data.resize) == (12, 12)
    assert larger.identity != probed.identity
    imagenet = DataConfig(image_size=224, resize=232)
    assert encoder_of_run._transform(workdir, imagenet, TransferConfig()).resize == 232
    assert (
        encoder_of_run._transform(workdir, imagenet, TransferConfig(image_size=448)).resize == 464
    )


def test_photographs_are_brought_to_the_range_of_the_network(run, photos, tmp_path):
    """255 of a photograph is 16 of the digits: the plan's records are scaled, and keyed so."""
    probed = encoder_of_run.load(run[0], TransferConfig())
    planned = task_features.plan(probed, Task("photos", f"folder:{photos}", test=""))
    pixels, _ = planned.splits["train"].records.read(0)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (9, 12, 1)
    assert pixels.max() <= 16
    assert planned.depends_on["train"]["scale"] == 16 / 255
    digits = task_features.plan(probed, Task("digits", "digits", test=""))
    assert digits.depends_on["train"]["scale"] == 1


def test_mistakes_are_said(run, tmp_path):
    workdir, _ = run
    with pytest.raises(ConfigError, match=r"has no config.json"):
        encoder_of_run.load(tmp_path, TransferConfig())
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(ConfigError, match="has no checkpoints; train it first"):
        encoder_of_run.load(tmp_path, TransferConfig())
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["source"] = "tfds:cifar10:3.0.2"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"(?s)kept their size, .* Give the side .* --image-size"):
        encoder_of_run.load(tmp_path, TransferConfig(data_dir=str(tmp_path)))
    digits = digest.describe(data.load(configs.get("digits").data))
    record_start(tmp_path, step=0, images=digits)
    with pytest.raises(ConfigError, match="has no checkpoints; train it first"):
        encoder_of_run.load(tmp_path, TransferConfig(data_dir=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps(config | {"colour": "red"}))
    with pytest.raises(ConfigError, match="the fields colour, which this version does not know"):
        encoder_of_run.load(tmp_path, TransferConfig())


def test_splits_of_one_prepared_data_set_are_told_apart(run, monkeypatch):
    """Their files and sizes may be the same: the split is part of what features depend on."""
    monkeypatch.setattr(task_features.identity, "digest_records", lambda records, classes: "same")
    task_features._load.cache_clear()
    probed = encoder_of_run.load(run[0], TransferConfig())
    planned = task_features.plan(probed, Task("digits", "digits", test=""))
    task_features._load.cache_clear()
    assert planned.depends_on["train"] != planned.depends_on["test"]


def test_features_of_others_are_read(tmp_path):
    """npz, a pair of npy, and a directory of ours, whose broken rows are left out."""
    np.savez(tmp_path / "a.npz", features=ROWS, labels=LABELS)
    np.save(tmp_path / "a_features.npy", ROWS)
    np.save(tmp_path / "a_labels.npy", LABELS)
    for name in ("a.npz", "a_features.npy"):
        found = features.read_saved(tmp_path / name)
        assert np.array_equal(found.features, ROWS), name
        assert np.array_equal(found.labels, LABELS), name
    assert isinstance(found.features, np.memmap)
    directory = keep(tmp_path, lambda rows: (ROWS[rows], np.where(LABELS == 1, -1, LABELS)[rows]))
    ours = features.read_saved(directory.directory)
    assert np.array_equal(ours.features, ROWS[LABELS != 1])
    assert 1 not in ours.labels


def test_rows_without_a_label_are_counted_by_every_reader(tmp_path, capsys):
    """-1 and -100 alike, in npz and npy; the number is told once a file."""
    labels = LABELS.copy()
    labels[[0, 3]], labels[4] = -1, -100
    np.savez(tmp_path / "a.npz", features=ROWS, labels=labels)
    np.save(tmp_path / "a_features.npy", ROWS.astype(">f4"))
    np.save(tmp_path / "a_labels.npy", labels.astype(">i8"))
    for name in ("a.npz", "a_features.npy"):
        read = features.read_saved(tmp_path / name)
        assert np.array_equal(read.features, ROWS[labels >= 0]), name
        assert np.array_equal(read.labels, labels[labels >= 0]), name
        assert read.features.dtype.isnative
        assert read.labels.dtype.isnative
        assert f"{name}: 3 of {len(labels)} rows" in capsys.readouterr().err


def test_labels_of_files_are_any_integers_or_text():
    """K is the number of different labels in all splits; those that are 0 .. K-1 stay."""
    train = selection.Samples(ROWS[:4], np.array([7, 100_002, 7, 2**40]))
    test = selection.Samples(ROWS[:2], np.array([9, 7], np.uint64))
    splits, num_classes = renumber({"train": train, "test": test})
    assert num_classes == 4
    assert splits["train"].labels.tolist() == [0, 2, 0, 3]
    assert splits["test"].labels.tolist() == [1, 0]
    assert splits["train"].features is train.features
    same = {"train": selection.Samples(ROWS[:3], np.array([2, 0, 1]))}
    splits, num_classes = renumber(same)
    assert (splits["train"].labels.tolist(), num_classes) == ([2, 0, 1], 3)
    words = {"train": same["train"]._replace(labels=np.array(["b", "a", "b"]))}
    assert renumber(words)[0]["train"].labels.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="text for labels, and others numbers"):
        renumber(same | {"test": words["train"]})


@pytest.mark.parametrize(
    ("labels", "message"),
    [(-LABELS - 2, "labels are negative, the first is -"), (0 * LABELS - 1, "which means none")],
)
def test_labels_that_name_no_class_are_refused(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", features=ROWS, labels=labels)
    np.save(tmp_path / "a_features.npy", ROWS)
    np.save(tmp_path / "a_labels.npy", labels)
    for name in ("a.npz", "a_features.npy"):
        with pytest.raises(ConfigError, match=message):
            features.read_saved(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", {"features": ROWS}, "has no array 'labels'"),
        ("missing.npz", None, "no such file"),
        ("b_features.npy", LABELS, r"must be \[N, D\]"),
        ("b.npy", ROWS, "no labels beside it"),
        ("c_features.npy", ROWS, "no labels beside it"),
    ],
)
def test_what_is_not_features_is_refused(tmp_path, name, content, message):
    np.save(tmp_path / "b_labels.npy", LABELS)
    if isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif content is not None:
        np.save(tmp_path / name, content)
    with pytest.raises(ConfigError, match=message):
        features.read_saved(tmp_path / name)
