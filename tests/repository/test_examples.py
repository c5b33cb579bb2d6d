"""Every example runs, prints, and computes what the slow reference computes from its features."""

import json
import pathlib
import runpy

import jax
import numpy as np
import pytest
import reference
from sklearn.datasets import load_digits

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES / 16).astype(np.float32)


@pytest.fixture
def example(capsys):
    """Runs an example's main; returns its names and what main returned, after it has printed."""

    def run(name):
        module = runpy.run_path(str(EXAMPLES / name))
        result = module["main"]()
        assert "VCI" in capsys.readouterr().out
        return module, result

    return run


def agrees(report, features, labels=LABELS):
    """The float32 stream against the float64 reference, on the features the example must see."""
    expected = reference.metrics(np.asarray(features), labels)
    for name in ("vci", "fuzziness", "squared_distance", "cosine_similarity", "class_separation"):
        np.testing.assert_allclose(report[name], expected[name], rtol=1e-4, err_msg=name)
    assert report["samples"] == len(labels)
    assert report["label_out_of_range"] == report["non_finite"] == 0


def duality(features, kernel):
    """NC3 from its formula, classifier given as [D, K]."""
    features = np.asarray(features, np.float64)
    means = np.stack([features[LABELS == k].mean(axis=0) for k in range(10)])
    means -= np.bincount(LABELS) @ means / len(LABELS)
    weights = np.asarray(kernel, np.float64).T
    return np.linalg.norm(weights / np.linalg.norm(weights) - means / np.linalg.norm(means))


def test_a_linen_network(example):
    """The report is that of the network's features, and its interval is a proper one."""
    module, report = example("measure_linen.py")
    network = module["Network"]()
    features = network.apply(network.init(jax.random.key(0), IMAGES[:1]), IMAGES)[1]
    agrees(report, features)
    low, high = report["vci_interval"]
    assert 0 < low < report["vci_adjusted"] < high < 1


def test_an_nnx_network(example):
    """The features and the classifier of an nnx module reach the report."""
    from flax import nnx

    module, report = example("measure_nnx.py")
    network = module["Network"](nnx.Rngs(0))
    features = network.features(IMAGES)
    agrees(report, features)
    kernel = network.head.kernel[...]
    np.testing.assert_allclose(report["self_duality"], duality(features, kernel), rtol=1e-5)


def test_an_equinox_network(example):
    """The same for Equinox, whose weights are [K, D]."""
    pytest.importorskip("equinox", reason="needs equinox")
    module, report = example("measure_equinox.py")
    network = module["Network"](jax.random.key(0))
    features = jax.vmap(network.features)(IMAGES)
    agrees(report, features)
    kernel = network.head.weight.T
    np.testing.assert_allclose(report["self_duality"], duality(features, kernel), rtol=1e-5)


def test_a_torch_network(example):
    """A PyTorch loader and module measure as they are; its weights are [K, D] as well."""
    torch = pytest.importorskip("torch", reason="needs torch, which the project does not install")
    _, report = example("measure_torch.py")
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
    classifier = torch.nn.Linear(32, 10)
    features = backbone(torch.tensor(IMAGES)).detach().numpy()
    agrees(report, features)
    kernel = classifier.weight.detach().numpy().T
    np.testing.assert_allclose(report["self_duality"], duality(features, kernel), rtol=1e-5)


def test_a_torch_loop_that_is_watched(example, tmp_path, monkeypatch):
    """Its directory has the rows of every look, and the test features are less collapsed."""
    pytest.importorskip("torch", reason="needs torch, which the project does not install")
    monkeypatch.chdir(tmp_path)
    _, reports = example("monitor_torch.py")
    lines = (tmp_path / "runs" / "torch" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["epoch"], row["split"]) for row in rows] == [
        (epoch, split) for epoch in (4, 8, 12) for split in ("train", "test")
    ]
    assert rows[-1]["vci"] == reports["test"].vci
    assert reports["test"].vci_adjusted > reports["train"].vci_adjusted
    assert rows[-1]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("framework", "epochs"), [("lightning", [5, 10]), ("transformers", [4, 8])]
)
def test_a_callback(example, tmp_path, monkeypatch, framework, epochs):
    """Its directory has a row of every measurement, of all the test images, and is what it says."""
    for package in (framework, "torch"):
        reason = f"needs {package}, which the project does not install"
        pytest.importorskip(package, reason=reason)
    monkeypatch.chdir(tmp_path)
    name = {"lightning": "lightning", "transformers": "huggingface"}[framework]
    _, reports = example(f"monitor_{name}.py")
    lines = (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["epoch"], row["split"]) for row in rows] == [(e, "test") for e in epochs]
    steps = [row["step"] for row in rows]
    assert steps[1] == 2 * steps[0] > 0
    assert rows[-1]["vci"] == reports["test"].vci < rows[0]["vci"]
    assert reports["test"].samples in (359, 389)
    assert rows[-1]["accuracy"] > 0.8


def test_a_plain_function(example):
    """Any callable will do, and padded rows do not count."""
    _, reports = example("measure_function.py")
    assert set(reports) == {"pixels", "squares"}
    agrees(reports["pixels"], IMAGES)
    agrees(reports["squares"], IMAGES**2)


def test_a_loop_of_ones_own(example):
    """VCI falls at every look while the network trains, by more than a quarter in all."""
    _, values = example("own_loop.py")
    assert len(values) == 5
    assert np.all(np.diff(values) < 0)
    assert values[-1] < 0.75 * values[0]


def test_several_layers_at_once(example):
    """Each row of the table is what its layer alone would give, pooled over the image."""
    module, table = example("layers.py")
    images = IMAGES[:1792].reshape(-1, 8, 8, 1)
    network = module["Network"]()
    layers = network.apply(network.init(jax.random.key(0), images[:1]), images)[1]
    assert list(table) == list(layers) == ["conv0", "conv1", "conv2"]
    for name, layer in layers.items():
        agrees(table[name], np.asarray(layer).mean(axis=(1, 2)), LABELS[:1792])


def test_the_notebook_of_a_watched_training(tmp_path, monkeypatch, capsys):
    """Its cells run in order; classes collapse on the training images, and there is a page."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads((EXAMPLES / "monitor.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "monitor.ipynb", "exec"), names)
    assert "Report: " in capsys.readouterr().out
    lines = (tmp_path / "runs" / "notebook" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if json.loads(line)["split"] == "train"]
    assert [row["epoch"] for row in rows] == [3, 6, 9, 12]
    assert rows[-1]["vci_adjusted"] < rows[0]["vci_adjusted"]
    assert (tmp_path / "runs" / "notebook" / "report.html").stat().st_size > 10_000


def test_examples_read_as_documentation():
    """Short, documented, run by their name, and not called like a package they import."""
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) == 11
    for name in names:
        lines = (EXAMPLES / name).read_text().splitlines()
        assert len(lines) < 60
        assert lines[0].startswith('"""')
        assert lines[-2:] == ['if __name__ == "__main__":', "    main()"]
        assert not any(line.split()[1:2] == [name[:-3]] for line in lines if "import" in line)
