"""measure: any callable, any batches, one pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import gaussian_classes

import vci_jax

INPUTS, LABELS = gaussian_classes(4, 96, 3, 5)
MAP = np.random.default_rng(0).standard_normal((5, 4))


def batches(size=32):
    for low in range(0, len(LABELS), size):
        yield INPUTS[low : low + size], LABELS[low : low + size]


def direct():
    state = vci_jax.init(3, 4)
    return vci_jax.report(jax.jit(vci_jax.update)(state, np.maximum(INPUTS @ MAP, 0), LABELS))


@pytest.mark.parametrize(
    "feature_fn",
    [
        jax.jit(lambda x: jnp.maximum(x @ MAP, 0)),
        lambda x: np.maximum(x @ MAP, 0),
        lambda x: np.maximum(x @ MAP, 0).tolist(),
    ],
)
def test_any_callable_gives_the_report_of_its_features(feature_fn):
    result, expected = vci_jax.measure(feature_fn, batches(), 3), direct()
    assert result.keys() == expected.keys()
    for name in ("vci", "vci_adjusted", "fuzziness", "logme", "effective_rank", "etf_error"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, err_msg=name)


def test_batches_may_be_mappings_with_padding():
    mask = np.arange(40) < 32
    full = [
        {"image": np.pad(x, [(0, 8), (0, 0)]), "label": np.pad(y, (0, 8)), "mask": mask}
        for x, y in batches()
    ]
    result = vci_jax.measure(lambda x: np.maximum(x @ MAP, 0), full, 3)
    np.testing.assert_allclose(result["vci"], direct()["vci"], rtol=1e-5)
    assert result["samples"] == 96


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("image", "label"), {}),
        (("input_ids", "labels"), {}),
        (("pixel_values", "labels"), {}),
        (("x", "y"), {"inputs": "x", "labels": "y"}),
        (("x", "y"), {"inputs": ("x", "more"), "labels": "y"}),
    ],
)
def test_mappings_of_other_loaders(names, options):
    """By the names that loaders use, or those given; several inputs come as a dictionary."""
    given = [dict(zip((*names, "more"), (x, y, 0), strict=True)) for x, y in batches()]
    several = isinstance(options.get("inputs"), tuple)

    def features(x):
        return np.maximum((x["x"] + x["more"] if several else x) @ MAP, 0)

    result = vci_jax.measure(features, given, 3, **options)
    np.testing.assert_allclose(result["vci"], direct()["vci"], rtol=1e-5)


def test_layers_are_measured_in_one_pass():
    """A report for each, as if it had been alone; blocks and all."""
    reports = vci_jax.measure(lambda x: {"in": x, "out": x @ MAP}, batches(16), 3, blocks=3)
    assert list(reports) == ["in", "out"]
    alone = vci_jax.measure(lambda x: x @ MAP, batches(16), 3, blocks=3)
    assert reports["out"] == alone
    assert reports["in"]["dim"] == INPUTS.shape[1]


def test_blocks_give_an_interval():
    result = vci_jax.measure(lambda x: x @ MAP, batches(16), 3, blocks=3)
    low, high = result["vci_interval"]
    assert low < result["vci_adjusted"] < high


def test_class_weighting_with_counts():
    labels = np.minimum(LABELS, 1)
    result = vci_jax.measure(
        lambda x: x, [(INPUTS, labels)], 2, weighting="class", class_counts=np.bincount(labels)
    )
    assert 0 < result["vci"] < 1


def test_labels_that_int32_cannot_hold_do_not_wrap():
    """2^32 + 1 is not class 1."""
    labels = LABELS.astype(np.int64)
    labels[0] = 2**32 + 1
    result = vci_jax.measure(lambda x: x, [(INPUTS, labels)], 3)
    assert (result["label_out_of_range"], result["samples"]) == (1, 95)


def test_the_host_never_waits_for_the_device_between_batches(monkeypatch):
    """Between batches nothing is fetched: every way to wait for an array is counted."""
    ready = [(jnp.asarray(x), jnp.asarray(y)) for x, y in batches()]
    waits, done = [], []

    def watched():
        yield from ready
        done.append(len(waits))  # the stream is over: from here on report may fetch

    kind = type(ready[0][0])
    for name in ("__array__", "block_until_ready", "__float__", "__int__", "__bool__", "item"):
        original = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda *a, f=original, n=name, **k: waits.append(n) or f(*a, **k)
        )
    feature_fn = jax.jit(lambda x: x @ jnp.asarray(MAP))
    assert vci_jax.measure(feature_fn, watched(), 3)["samples"] == 96
    assert done == [0]


def test_progress_is_one_line(capsys):
    vci_jax.measure(lambda x: x, batches(), 3, progress=True)
    shown = capsys.readouterr().err
    assert "3 batches, 96 rows" in shown
    assert shown.endswith("\n")
    vci_jax.measure(lambda x: x, batches(), 3)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("feature_fn", "data", "options", "words"),
    [
        (lambda x: x, [], {}, "batches is empty"),
        (lambda x: x, [INPUTS], {}, "A batch must be"),
        (lambda x: x, [{"x": INPUTS, "y": LABELS}], {}, r"needs \"image\" and .* got \['x'"),
        (lambda x: x, [{"x": INPUTS, "y": LABELS}], {"inputs": "z", "labels": "y"}, r"\['z'\]"),
        (lambda x: {}, [(INPUTS, LABELS)], {}, "empty mapping"),
        (lambda x: {"a": x}, [(INPUTS, LABELS)], {"head": np.ones((5, 3))}, "one layer"),
        (lambda x: {"a": x[0]}, [(INPUTS, LABELS)], {}, r"got shape \(5,\) at 'a'"),
        (
            lambda x: x[:, None],
            [(INPUTS, LABELS)],
            {},
            r"must return \[N, D\], got shape \(96, 1, 5",
        ),
        (lambda x: x, [(INPUTS, LABELS)], {"blocks": 2}, "cannot fill blocks=2"),
        (lambda x: x, [(INPUTS, LABELS)], {"blocks": 0}, "at least 1, got 0"),
        (lambda x: x, [(INPUTS, LABELS / 2)], {}, "labels must be integers"),
        (lambda x: x, [(INPUTS, LABELS)], {"blocks": "4"}, "blocks must be an integer .* got '4'"),
        (lambda x: x, 7, {}, "batches must be iterable, got int"),
        (lambda x: x, (INPUTS, LABELS), {}, "arrays in memory call vci_jax.measure_arrays"),
        (lambda x: x, [(INPUTS, LABELS, None, 0)], {}, "got tuple of 4"),
        (INPUTS, [(INPUTS, LABELS)], {}, "feature_fn must be a function of the inputs, got nd"),
        (lambda x: (x, x), [(INPUTS, LABELS)], {}, "features .N, D., got tuple: return the array"),
        (lambda x: {"a": None}, [(INPUTS, LABELS)], {}, "got NoneType at 'a'"),
    ],
)
def test_bad_input_is_refused(feature_fn, data, options, words):
    with pytest.raises(ValueError, match=words):
        vci_jax.measure(feature_fn, data, 3, **options)


@pytest.mark.parametrize("count", [None, "3", 3.0, 0, True])
def test_the_number_of_classes_is_a_whole_number(count):
    for call in (
        lambda: vci_jax.measure(lambda x: x, [(INPUTS, LABELS)], count),
        lambda: vci_jax.init(count, 5),
        lambda: vci_jax.Monitor(count),
        lambda: vci_jax.vci_loss(INPUTS, LABELS, count),
    ):
        with pytest.raises(vci_jax.VCIError, match=rf"num_classes must be .* got {count!r}"):
            call()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: vci_jax.jit_update(x, INPUTS, LABELS),
        lambda x: vci_jax.merge(x, x),
        lambda x: vci_jax.save("never.npz", x),
        vci_jax.per_class, vci_jax.class_means, vci_jax.factorize, vci_jax.collapse_metrics,
    ],
)  # fmt: skip
def test_arrays_in_place_of_moments_are_refused(function):
    with pytest.raises(vci_jax.VCIError, match=r"for arrays call vci_jax.measure_arrays"):
        function(INPUTS)


@pytest.mark.parametrize("names", [("images", "labels"), ("img", "target"), ("inputs", "targets")])
def test_more_names_that_loaders_have(names):
    batch = dict(zip(names, (INPUTS, LABELS), strict=True))
    report = vci_jax.measure(lambda x: x, [batch], 3, only=["vci"])
    assert report == vci_jax.measure(lambda x: x, [(INPUTS, LABELS)], 3, only=["vci"])
