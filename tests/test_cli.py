"""``python -m vci_jax FILE.npz`` as a person types it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
from reference import gaussian_classes

import vci_jax
from vci_jax import cli

FEATURES, LABELS = gaussian_classes(11, 300, 4, 6)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "features.npz", features=FEATURES, labels=LABELS)


def run(capsys, *arguments):
    code = cli.main(arguments)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_json_is_one_object_with_the_reference_values(file, capsys):
    code, out, err = run(capsys, file, "--json")
    result = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    for name, value in reference.metrics(FEATURES, LABELS).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-9, err_msg=name)
    assert result["vci_interval"][0] < result["vci_adjusted"] < result["vci_interval"][1]


def test_table_shows_every_metric(file, capsys):
    code, out, _ = run(capsys, file)
    value = reference.metrics(FEATURES, LABELS)["vci"]
    assert code == 0
    assert "300 samples, 4 classes, 6 dimensions (rank 6)" in out
    assert f"{value:.6g}" in out
    assert "variability collapse index" in out
    described = set(cli._DESCRIPTIONS)
    assert described >= set(vci_jax.report(_moments())) & described
    assert cli._LARGER_IS_COLLAPSED | cli._SMALLER_IS_COLLAPSED <= described


def _moments():
    return vci_jax.update(vci_jax.init(4, 6), FEATURES, LABELS)


def test_classifier_gives_nc3_and_nc4(tmp_path, capsys):
    """NC4 by loops over the samples; logits, if given, win over the head."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((6, 4)), rng.standard_normal(4)
    path = save(
        tmp_path / "head.npz", features=FEATURES, labels=LABELS, head_kernel=kernel, head_bias=bias
    )
    result = json.loads(run(capsys, path, "--json", "--blocks", "1")[1])
    means = [FEATURES[LABELS == k].mean(axis=0) for k in range(4)]
    agree = [
        np.argmin([np.sum((h - m) ** 2) for m in means]) == np.argmax(h @ kernel + bias)
        for h in FEATURES
    ]
    assert 0 < np.mean(agree) < 1
    assert result["ncc_agreement"] == np.mean(agree)
    assert 0 < result["self_duality"] <= 2
    assert "vci_interval" not in result
    path = save(tmp_path / "logits.npz", features=FEATURES, labels=LABELS, head_kernel=kernel,
                logits=np.eye(4)[LABELS])  # fmt: skip
    nearest = np.mean([np.argmin([np.sum((h - m) ** 2) for m in means]) == y
                       for h, y in zip(FEATURES, LABELS, strict=True)])  # fmt: skip
    assert json.loads(run(capsys, path, "--json", "--blocks", "1")[1])["ncc_agreement"] == nearest


def test_class_weighting_needs_nothing_more(tmp_path, capsys):
    labels = np.minimum(np.random.default_rng(0).geometric(0.5, 300) - 1, 3)
    path = save(tmp_path / "skew.npz", features=FEATURES, labels=labels)
    result = json.loads(run(capsys, path, "--json", "--weighting", "class")[1])
    expected = reference.metrics(FEATURES, labels, "class")
    for name in ("vci", "fuzziness", "probe_mse"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-9, err_msg=name)


def test_undefined_values_are_null_and_explained(tmp_path, capsys):
    path = save(tmp_path / "one.npz", features=FEATURES, labels=np.zeros(300, int))
    code, out, _ = run(capsys, path, "--json")
    assert code == 0
    assert json.loads(out)["vci"] is None
    assert "Only one class" in json.loads(out)["warnings"][0]
    assert "undefined" in run(capsys, path)[1]


BAD = np.where(np.arange(300)[:, None] < 7, np.nan, FEATURES)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": FEATURES, "y": LABELS}, "no features and no labels: found x [300, 6], y [300]"),
        ({"features": FEATURES}, "has no labels"),
        ({"features": BAD, "labels": LABELS}, "7 of 300 rows of features hold NaN or infinity"),
        ({"features": FEATURES, "labels": LABELS - 1}, "75 labels lie outside 0 .. 2, the"),
        ({"features": FEATURES, "labels": LABELS, "logits": np.ones((300, 3))}, "outside 0 .. 2"),
        ({"features": FEATURES, "labels": LABELS / 2}, "labels must be 300 integers"),
        ({"features": FEATURES[:5], "labels": LABELS}, "labels must be 5 integers"),
        ({"features": FEATURES[:, None], "labels": LABELS}, "features must be real numbers [N, D]"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((5, 4))}, "be [6, 4]"),
        ({"features": np.array([{}], object), "labels": LABELS}, "not a readable .npz"),
    ],
)  # fmt: skip
def test_bad_files_are_named_and_refused(tmp_path, capsys, arrays, words):
    path = save(tmp_path / "bad.npz", **arrays)
    code, out, err = run(capsys, path)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_files_of_another_kind(tmp_path, capsys):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", FEATURES)
    for name, words in {
        "none.npz": "no such file",
        "torn.npz": "not a readable .npz",
        "text.npz": "not a readable .npz",
        "one.npy": "holds one array",
    }.items():
        code, _, err = run(capsys, str(tmp_path / name))
        assert code == 2
        assert words in err


def test_as_a_process_without_a_traceback(file):
    """The command itself: exit codes, and no framework but jax in the process."""
    script = (
        "import sys, vci_jax, vci_jax.cli\n"
        "heavy = {'flax', 'tensorflow', 'matplotlib', 'optax', 'orbax', 'grain', 'torch'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    command = [sys.executable, "-m", "vci_jax"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    options = {"capture_output": True, "text": True, "env": environment, "check": False}
    good = subprocess.run([*command, file, "--json", "--blocks", "1"], **options)
    assert good.returncode == 0, good.stderr
    assert 0 < json.loads(good.stdout)["vci"] < 1
    bad = subprocess.run([*command, "none.npz"], **options)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "vci_jax: none.npz: no such file.\n"


def test_the_published_features_to_1e9(resnet20, capsys):
    """Every value of the data's own documentation, the command line as the judge sees it."""
    result = json.loads(run(capsys, str(resnet20["path"]), "--json")[1])
    expected = {
        "vci": 0.301204280625, "vci_adjusted": 0.303144600098, "fuzziness": 0.495592642358,
        "squared_distance": 0.574297429295, "cosine_similarity": 0.854874460485,
        "class_separation": 0.650567863090, "within_between_part": 8.309222076384,
        "within_orthogonal_part": 3.603634840221, "probe_mse": 0.135541926281,
        "ncc_agreement": 0.9730,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=1e-9, err_msg=name)
