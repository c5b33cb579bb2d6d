"""The study of docs/study.md: its text against raw files, its errors against known truth."""

import base64
import json
import pathlib

import numpy as np
import pytest

import configs
from studies.cifar10 import choosing, document, networks, pilot, resampling, score, statements
from studies.cifar10.__main__ import main
from studies.cifar10.networks import GROUPS, OWN, SETTINGS, TASKS, Networks

ROOT = pathlib.Path(__file__).parents[2]
STUDY = ROOT / "docs" / "study"
RAW = STUDY / "networks"
FILES = sorted(RAW.glob("seed_*/*.json"))
SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def study():
    return document.read(STUDY, draws=200)


def test_page_pilot_and_readme_are_what_the_raw_files_say():
    assert main([str(STUDY), "--readme", str(ROOT / "README.md"), "--check"]) == 0


def test_a_text_that_is_not_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("one\ntwo\n")
    assert not document.compare(page, "one\ntwo\n")
    assert "line 2, is\n  two\nand should be\n  three" in document.compare(page, "one\nthree\n")
    assert "line 1" in document.compare(tmp_path / "none.md", "one\n")


def test_the_command_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "networks" / "seed_3").mkdir(parents=True)
    assert main([str(tmp_path)]) == 2
    assert "studies.cifar10.score makes them" in capsys.readouterr().err
    (tmp_path / "networks" / "images.json").write_text((RAW / "images.json").read_text())
    (tmp_path / "networks" / "seed_3" / "tau_1.0.json").write_text(FILES[-1].read_text())
    assert main([str(tmp_path)]) == 2
    assert "is of " in capsys.readouterr().err
    (tmp_path / "networks" / "seed_3" / "tau_1.0.json").write_text(
        (RAW / "seed_3" / "tau_1.0.json").read_text()
    )
    assert main([str(tmp_path)]) == 2
    assert "no network of tau_0.75" in capsys.readouterr().err


def test_every_setting_of_the_config_has_networks():
    """Three seeds of those of the preregistration, and some of those that were added."""
    assert set(configs.runs("collapse_study")) == set(SETTINGS)
    found = {path.relative_to(RAW).with_suffix("") for path in FILES}
    asked = {
        pathlib.Path(f"seed_{seed}") / name
        for seed in SEEDS
        for name in SETTINGS
        if name not in networks.ADDED
    }
    assert asked <= found
    assert {path.name for path in found - asked} == set(networks.ADDED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_raw_file_is_whole(path):
    """Its accuracies are those of its bits, on as many images as each task has."""
    raw = json.loads(path.read_text())
    assert raw["test"]["samples"] == raw["test"]["images"] == 10_000
    assert raw["train"]["samples"] == 5_000
    assert list(raw["tasks"]) == list(TASKS)
    images = {name: one["images"] for name, one in raw["tasks"].items()}
    assert list(images.values()) == [10_000, 10_000, 6_500, 3_000, 1_797, 1_033]
    for one in (raw["test"], *raw["tasks"].values()):
        bits = [np.frombuffer(base64.b64decode(text), np.uint8) for text in one["right"]]
        right = sum(int(np.unpackbits(part).sum()) for part in bits)
        assert right / (len(bits) * one["images"]) == pytest.approx(one["accuracy"], abs=3e-4)
    assert raw["machine"][0]["device_kind"]


def _bits(text, size):
    """As ``numpy`` has it, and not as the study does."""
    data = base64.b64decode(text)
    return np.array([(data[i // 8] >> (7 - i % 8)) & 1 for i in range(size)], float)


def test_five_numbers_of_the_page_from_the_raw_files_alone():
    """Written afresh: nothing of the study is used but the text."""
    raws = [json.loads(path.read_text()) for path in FILES if path.stem not in networks.ADDED]
    page = STUDY.with_suffix(".md").read_text()

    def odds(share):
        return np.log(share / (1 - share))

    def mlog(raw):
        right = [
            np.mean([_bits(text, one["images"]).mean() for text in one["right"]])
            for one in raw["tasks"].values()
        ]
        own = _bits(raw["test"]["right"][0], 10_000).mean()
        return np.mean([odds(share) for share in right]) - odds(own)

    gain = {(raw["setting"], raw["seed"]): mlog(raw) for raw in raws}
    vci = {(raw["setting"], raw["seed"]): raw["train"]["vci"] for raw in raws}

    def mean(values, setting):
        return np.mean([values[setting, seed] for seed in SEEDS])

    # 1, 2: a cell of the table of settings, and how MLOG goes with temperature.
    (row,) = [line for line in page.splitlines() if line.startswith("| temperature 0.05 ")]
    assert row.split("|")[-2].split()[0] == f"{mean(gain, 'tau_0.05'):.3f}"
    temperatures = ["tau_1.0", "tau_0.75", "tau_0.5", "tau_0.25", "tau_0.1", "tau_0.05"]
    y = [mean(gain, name) for name in temperatures]
    slope = np.polyfit(range(6), y, 1)[0] * 5
    assert f"| {slope:+.2f} [" in _line(page, "A lower temperature transfers better")
    # 3: the correlation of VCI with MLOG over all settings.
    settings = sorted({raw["setting"] for raw in raws})
    r = np.corrcoef(*([mean(values, name) for name in settings] for values in (vci, gain)))[0, 1]
    assert f"| {r:+.2f} [" in _line(page, "VCI correlates with transfer positively over all")
    # 4: the standard deviation between the temperatures.
    assert f"| {np.std(y, ddof=1):.3f} " in _line(page, "| MLOG | temperature")
    # 5: accuracy lost by choosing by VCI.
    lost = []
    for seed in SEEDS:
        inside = [raw for raw in raws if raw["seed"] == seed]
        best = max(inside, key=lambda raw: raw["train"]["vci"])
        for task in best["tasks"]:
            scores = [raw["tasks"][task]["accuracy"] for raw in inside]
            lost.append(max(scores) - best["tasks"][task]["accuracy"])
    assert f"| {100 * np.mean(lost):.2f} ±" in _line(page, "| VCI of the pretraining images", "±")


def _line(page, *parts):
    (line,) = [line for line in page.splitlines() if all(part in line for part in parts)]
    return line


def test_an_image_that_a_task_shares_is_drawn_for_it_as_well(study):
    """The super-classes of an image are drawn with it: errors of the tasks go together."""
    accuracy = resampling.accuracies(study.networks, 400)
    first = accuracy["cifar100"][1:, 0], accuracy["cifar100_living"][1:, 0]
    assert np.corrcoef(*first)[0, 1] > 0.4
    assert abs(np.corrcoef(first[0], accuracy["digits"][1:, 0])[0, 1]) < 0.2  # 4 / sqrt(400)
    for task in TASKS:
        exact = study.networks.right[task].mean(axis=1)
        np.testing.assert_allclose(accuracy[task][0], exact, rtol=1e-6)
        p, n = exact[0], study.networks.right[task].shape[1]
        spread = np.std(study.networks.right[task][0]) / np.sqrt(n)
        np.testing.assert_allclose(accuracy[task][1:, 0].std(), spread, rtol=0.15)
        assert spread <= np.sqrt(p * (1 - p) / n) * (1 + 1e-9)


def simulated(rng, slope, *, noise=0.15, images=300, seeds=3):
    """Networks whose log odds on every task are linear in the knob of their group."""
    names = [name for name in SETTINGS for _ in range(seeds)]
    truth = {}
    for group in GROUPS.values():
        for rank, name in enumerate(group):
            truth.setdefault(name, slope * rank / (len(group) - 1))
    own = np.array([truth[name] for name in names]) + noise * rng.normal(size=len(names))
    hard = rng.normal(size=images)  # An image that is hard for one is hard for all.
    right = {
        task: (rng.logistic(size=(len(names), images)) < own[:, None] - hard).astype(float)
        for task in TASKS
    }
    right[OWN] = rng.integers(0, 2, (1, images)).repeat(len(names), axis=0).astype(float)
    everything = np.arange(images)
    return Networks(
        names=names,
        seeds=list(range(seeds)) * len(SETTINGS),
        metrics={("train", "vci"): own + 1},
        right=right,
        members=dict.fromkeys(right, everything),
        sizes=dict.fromkeys((OWN, "cifar100", "digits", "sign_digits"), images),
        cheap={},
        started=[""] * len(names),
        seconds=np.full((len(names), 2), np.nan),
        processors=[""] * len(names),
        failed=[],
    )


def test_intervals_cover_the_truth():
    """Of 150 simulated studies at least 93 % (95 % less 1.1 standard errors) hold the truth.

    They may hold it more often: residuals have the images' noise as well. The truth is what many
    images and seeds give, 60 times as many.
    """
    rng = np.random.default_rng(3)
    large = [simulated(rng, 0.8, images=4000, seeds=12) for _ in range(3)]
    truth = np.mean([_change(one, 1)[0] for one in large])
    inside, widths = [], []
    for _ in range(150):
        drawn = _change(simulated(rng, 0.8), 300)
        low, high = resampling.interval(drawn, 0.95)
        inside.append(low <= truth <= high)
        widths.append(high - low)
    assert np.mean(inside) >= 0.93
    assert np.mean(widths) < 1  # Wide enough is easy: it is the effect that they must resolve.


def _change(found, draws):
    accuracy = resampling.accuracies(found, draws, seed=int(1e6 * found.metrics["train", "vci"][0]))
    values = networks.gains(accuracy, resampling.task_weights(draws)).mlo
    picks = resampling.pick(found, draws)
    drawn = resampling.drawn_means(found, values, picks)
    return statements.change(drawn[:, statements.members(found.settings, "temperature")])


def test_networks_with_the_same_answers_differ_by_nothing_in_any_draw():
    found = simulated(np.random.default_rng(0), 0.0)
    for task in TASKS:
        found.right[task][:] = found.right[task][0]
    drawn = resampling.drawn_means(
        found,
        networks.gains(resampling.accuracies(found, 50), resampling.task_weights(50)).mlo,
        resampling.pick(found, 50),
    )
    assert np.ptp(drawn[:, 0]) > 0.05
    np.testing.assert_allclose(np.ptp(drawn, axis=1), 0, atol=1e-6)


def test_residuals_come_from_the_group_of_the_setting():
    found = simulated(np.random.default_rng(0), 0.0)
    picks = resampling.pick(found, 300)
    for group in GROUPS.values():
        for name in group[1:]:
            rows = picks.rows[:, found.settings.index(name)]
            assert {found.names[row] for row in np.unique(rows)} == set(group)
    plain = np.unique(picks.rows[:, found.settings.index(networks.PLAIN)])
    assert len(plain) == len(found.names)


def test_means_of_seeds_have_the_spread_that_new_seeds_would_give():
    """Of N(0, 1) values with 3 seeds a mean has the variance 1 / 3; 400 studies."""
    rng = np.random.default_rng(5)
    found = simulated(rng, 0.0)
    picks = resampling.pick(found, 100)
    spread = [
        resampling.drawn_means(found, rng.normal(size=len(found.names)), picks)[1:].var(axis=0)
        for _ in range(400)
    ]
    np.testing.assert_allclose(np.mean(spread), 1 / 3, rtol=0.03)


def test_data_sets_are_drawn_with_all_of_their_tasks():
    weights = resampling.task_weights(2000, others=True)
    np.testing.assert_allclose(weights[0], 1 / len(TASKS))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    data = list(TASKS.values())
    for name in set(data):
        inside = weights[:, [one == name for one in data]]
        assert (inside == inside[:, :1]).all()
    # All three draws are of CIFAR-100 in one of 27 cases: its tasks then have all the weight.
    alone = np.mean(weights[1:, -2:].sum(axis=1) == 0)
    assert abs(alone - 1 / 27) < 4 * np.sqrt(1 / 27 / 2000)
    np.testing.assert_array_equal(resampling.task_weights(5), np.full((5, 6), 1 / 6))


def test_correlations_over_other_settings_are_covered():
    """Of 400 studies of 20 settings drawn from a population with r = 0.6, at least 90 % hold it.

    That is 95 % less what the percentile bootstrap is known to lack at such sizes, and two
    standard errors. Intervals for these settings alone would hold it in few.
    """
    rng = np.random.default_rng(8)
    inside = 0
    for study in range(400):
        x = rng.normal(size=20)
        y = 0.6 * x + 0.8 * rng.normal(size=20)
        rows = resampling.setting_draws(list(range(20)), 500, others=True, seed=study)
        assert min(len(set(row)) for row in rows) >= 3
        low, high = resampling.interval(statements.pearson(x[rows], y[rows]), 0.95)
        inside += low <= 0.6 <= high
    assert 0.9 <= inside / 400 <= 0.98


def test_a_statement_whose_premise_fails_is_not_tested(study):
    assert study.verdicts["mlog"][14].verdict == statements.UNTESTED
    moved = study.drawn.metrics["train", "vci"].copy()
    moved[:, study.drawn.settings.index("vci_plus")] = 0.01
    drawn = study.drawn._replace(metrics=study.drawn.metrics | {("train", "vci"): moved})
    assert statements.judge(drawn, study.choices, "mlog")[14].verdict == statements.CONTRADICTED


@pytest.mark.parametrize(
    ("centre", "width", "sign", "verdict"),
    [
        (0.5, 0.1, 1, statements.CONFIRMED),
        (0.5, 0.1, -1, statements.CONTRADICTED),
        (-0.5, 0.1, -1, statements.CONFIRMED),
        (-0.5, 0.1, 1, statements.CONTRADICTED),
        (0.0, 0.05, 1, statements.ABSENT),
        (0.0, 0.05, -1, statements.ABSENT),
        (0.05, 0.2, 1, statements.UNDECIDED),
        (0.05, 0.01, 1, statements.CONFIRMED),  # Within the margin, and surely above zero.
    ],
)
def test_the_four_verdicts(centre, width, sign, verdict):
    drawn = np.concatenate([[centre], centre + width * np.linspace(-1, 1, 999)])
    made = statements.decide(0, "", drawn, sign, margin=0.1)
    assert made.verdict == verdict
    np.testing.assert_allclose((made.low, made.high), centre + width * np.array([-0.95, 0.95]))
    np.testing.assert_allclose(made.inner, centre + width * np.array([-0.9, 0.9]))


def test_a_correlation_that_one_setting_makes_is_not_decidable():
    x = np.array([[0.0, 0.1, -0.1, 0.05, 10.0]]).repeat(9, axis=0)
    y = np.array([[0.0, -0.1, 0.1, -0.05, 10.0]]).repeat(9, axis=0)
    every = np.arange(5)[None].repeat(9, axis=0)
    made = statements.decide_correlation(0, "", statements.pearson, (x, y), every, 1)
    assert made.low > 0.9
    assert made.verdict == statements.UNDECIDED
    assert made.without_one[0] < 0 < made.without_one[1]
    plain = statements.decide_correlation(0, "", statements.pearson, (x, x), every, 1)
    assert plain.verdict == statements.CONFIRMED


def test_slope_and_partial_correlation_are_those_of_least_squares():
    rng = np.random.default_rng(2)
    x, y, z = rng.normal(size=(3, 4, 9))
    slopes = [8 * np.polyfit(range(9), row, 1)[0] for row in y]
    np.testing.assert_allclose(statements.change(y), slopes)

    def residual(values, given):
        return values - np.polyval(np.polyfit(given, values, 1), given)

    expected = [
        np.corrcoef(residual(a, c), residual(b, c))[0, 1] for a, b, c in zip(x, y, z, strict=True)
    ]
    np.testing.assert_allclose(statements.partial(x, y, z), expected)
    errors = []
    for one in range(9):
        line = np.polyfit(np.delete(x[0], one), np.delete(y[0], one), 1)
        errors.append(y[0, one] - np.polyval(line, x[0, one]))
    np.testing.assert_allclose(document.left_out(x[0], y[0]), np.sqrt(np.mean(np.square(errors))))


def test_regret_is_what_the_chosen_network_lacks(study):
    """By the probe's own accuracy nothing is lost; by its negative, all of the range."""
    found = networks.preregistered(study.networks)
    accuracy = {name: values.mean(axis=1)[None] for name, values in found.right.items()}
    own = {
        (task, size, name): accuracy[task][0] for task, size, name in found.cheap
    }  # Every score is the accuracy itself.
    lost = choosing.choose(found._replace(cheap=own), accuracy)
    for score_, sign in choosing.TARGET.items():
        for size in choosing.sizes(found, score_):
            worst = [
                np.mean([np.ptp([accuracy[task][0][row] for row, seed in enumerate(found.seeds)
                                 if seed == one]) for one in SEEDS])
                for task in TASKS
            ]  # fmt: skip
            expected = 0 if sign > 0 else worst
            np.testing.assert_allclose(lost.regret[score_, size][0], expected, atol=1e-12)
    assert np.all(lost.spread > 0)


def test_where_a_task_has_fewer_images_all_of_them_are_taken(study):
    found = study.networks
    assert choosing.sizes(found, "logme") == ["500", "2000", "all"]
    assert choosing.sizes(found, "probe") == ["500", "2000"]
    for size, task, own in (("2000", "digits", "1797"), ("all", "cifar100", "20000"),
                            ("500", "digits", "500")):  # fmt: skip
        taken = choosing.cheap(found, task, size, "logme")
        np.testing.assert_array_equal(taken, found.cheap[task, own, "logme"])


def test_a_score_that_is_nan_is_not_chosen():
    found = np.array([[0.1, 0.9, 0.5]])
    lost = choosing.regret_of(found, np.array([np.nan, 1.0, 2.0]), np.array([[[0, 1, 2]]]))
    np.testing.assert_allclose(lost, 0.4)
    lost = choosing.regret_of(found, np.full(3, np.nan), np.array([[[0, 1, 2]]]))
    assert np.isnan(lost).all()


def test_folds_are_even_in_all_and_in_each_class():
    labels = np.random.default_rng(0).integers(0, 7, 203)
    fold = score.folds(labels, 1)
    assert np.ptp(np.bincount(fold)) <= 1
    for name in range(7):
        assert np.ptp(np.bincount(fold[labels == name], minlength=score.FOLDS)) <= 1
    assert not np.array_equal(fold, score.folds(labels, 2))


def test_a_part_of_the_images_has_even_classes_and_is_the_same_for_every_network():
    labels = np.random.default_rng(0).integers(0, 5, 400)
    features = np.arange(400.0)[:, None]
    part = score.part(score.Samples(features, labels), 100)
    assert np.ptp(np.bincount(part.labels)) <= 1
    other = score.part(score.Samples(-features, labels), 100)
    np.testing.assert_array_equal(part.features, -other.features)
    assert score.part(score.Samples(features, labels), 400).features is features


def test_bits_come_back():
    right = np.random.default_rng(0).random(1033) < 0.3
    np.testing.assert_array_equal(networks.unpack(networks.pack(right), 1033), right)
    np.testing.assert_array_equal(_bits(networks.pack(right), 1033), right)


def test_every_image_is_scored_once_a_repeat_by_a_probe_that_has_not_seen_it(monkeypatch):
    """A probe that remembers its images and knows no others gets none right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    target = score.Target("t", score.Samples(rng.normal(size=(60, 2)), labels), None, 3)

    def remembers(train, test, num_classes):
        return np.array([row in train.features for row in test.features]) & (num_classes == 3)

    monkeypatch.setattr(score, "answers", remembers)
    assert not score.cross_fitted(target, 0).any()
    monkeypatch.setattr(score, "answers", lambda train, test, _: np.ones(len(test.labels), bool))
    assert score.cross_fitted(target, 0).all()


def made(setting, seed, score_, accuracy=0.5):
    """A row of the pilot, of one task with 10,000 test images."""
    test = {"accuracy": accuracy, "samples": 10_000}
    return pilot.Row("regime", setting, seed, 1.0, {}, test,
                     {"one": {"accuracy": score_, "images": 10_000}})  # fmt: skip


def test_errors_of_the_pilot_are_those_of_resampled_test_sets():
    """Delta method against 20,000 binomial draws, to 3 % (their own error is 0.5 %)."""
    mlo, mlog = pilot.errors(made("tau_1.0", 0, 0.2, 0.6))
    draws = np.random.default_rng(0).binomial(10_000, [[0.2, 0.6]] * 20_000) / 10_000
    task, own = np.log(draws / (1 - draws)).T
    np.testing.assert_allclose(mlo, np.std(task), rtol=0.03)
    np.testing.assert_allclose(mlog, np.std(task - own), rtol=0.03)


def test_the_noise_of_seeds_is_pooled_within_settings():
    """Log odds that differ by 0.2 and by 0 between two seeds: variances 0.02 and 0, mean 0.01."""
    one, other = (1 / (1 + np.exp(-value)) for value in (1.0, 1.2))
    found = [made("tau_1.0", 0, one), made("tau_1.0", 1, other), made("tau_0.05", 0, 0.9)]
    assert pilot.seed_noise(found, "mlo") == pytest.approx(np.sqrt(0.02))
    found.append(found[2]._replace(seed=1))
    assert pilot.seed_noise(found, "mlo") == pytest.approx(0.1)
    assert np.isnan(pilot.seed_noise(found[1:3], "mlo"))
