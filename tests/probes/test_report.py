"""The report page: what it says of runs in any state, and that it stands alone."""

import functools
import json
import re
import threading
from pathlib import Path

import made_runs
import numpy as np
import pytest

from probes.analysis.runs import Run, read_run, read_runs
from probes.page import caveats, classes, command, curves, scatter, tables


def _page(*directories):
    """Writes the page of some directories and returns its text, and its data."""
    runs = read_runs(directories)
    out = command.default_path(runs)
    command.write(runs, out)
    text = out.read_text()
    return text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def _words(text):
    """The text without scripts, styles and tags."""
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_the_command_writes_the_page_of_a_run_into_it(tmp_path, capsys):
    """The curves hold the values of the rows, and the interval goes with the adjusted VCI."""
    run = made_runs.write_run(tmp_path / "run")
    assert command.main([str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    _, data = _page(run)
    (train, test) = next(c for c in data["charts"] if c["id"] == "vci_adjusted")["series"]
    assert (train["split"], test["split"]) == ("train", "test")
    assert train["x"] == [0, 1, 2, 3, 4]
    assert train["y"] == [round(0.51 / (1 + e), 6) for e in range(5)]
    assert train["low"] == [0.45, 0.225, 0.15, 0.1125, 0.09]
    assert test["high"][0] == 0.69
    assert {c["id"] for c in data["charts"] if c["main"] and c["series"]} == {
        m.name for m in curves.MAIN
    }


@pytest.mark.parametrize(
    ("adjusted", "start"),
    [(0.4, "VCI did not fall"), (None, "VCI, not adjusted for sample size, f")],
)
def test_the_sentence_names_its_quantity(tmp_path, adjusted, start):
    """It is the adjusted VCI where there is one, as the large numbers are."""
    rows = [made_runs.row(e, s, vci_adjusted=adjusted) for e in (0, 1) for s in tables.SPLITS]
    (run,) = read_runs([made_runs.write_run(tmp_path / "run", rows=rows)])
    (verdict,) = tables.verdicts([run])
    assert verdict["sentence"].startswith(start)
    train, test = (verdict["splits"][split]["vci"] for split in tables.SPLITS)
    assert (train, test) == (("0.400", "0.400") if adjusted else ("0.250", "0.300"))
    assert ("plain VCI of these images is 0.250" in tables.adjustment(run)) == bool(adjusted)


def test_the_page_asks_for_nothing_and_is_small(tmp_path):
    """No address is in it but uPlot's own in its licence line, and a policy forbids to connect."""
    made_runs.write_group(tmp_path / "group", runs=11)
    text, _ = _page(tmp_path / "group")
    assert not re.search(r'(?:src|href|action)\s*=\s*"(?!#|data:,")', text)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", text)
    assert "default-src 'none'" in text
    assert len(text) < 3_000_000


def test_a_large_group_stays_below_three_megabytes(tmp_path):
    """A thousand classes, 2048 eigenvalues, 100 records, twelve runs: thinned, and said so."""
    wide = {"between": [1 / (i + 1.5) for i in range(999)]}
    wide["total"] = [1 / (i + 1.7) for i in range(2048)]
    rows = [
        made_runs.row(e, s, spectrum=wide, dim=2048) for e in range(100) for s in ("train", "test")
    ]
    for i in range(12):
        run = made_runs.write_run(
            tmp_path / f"run_{i}", epochs=99, rows=rows if i < 2 else rows[:8]
        )
        (run / "per_class.json").write_text(json.dumps(made_runs.per_class(99, classes=1000)))
    text, data = _page(tmp_path)
    assert len(text) < 3_000_000
    spectrum = data["spectra"][0]
    assert spectrum["size"] == {"between": 999, "total": 2048}
    assert len(spectrum["index"]["total"]) <= 88
    assert (spectrum["index"]["total"][0], spectrum["index"]["total"][-1]) == (1, 2048)
    assert (spectrum["epochs"][0], spectrum["epochs"][-1]) == (0, 99)
    assert spectrum["between"][0][4] == float(f"{wide['between'][4]:.4g}")
    table = data["classes"][0]
    assert table["of"] == 1000
    assert table["rows"][0][0] == "class 3", "the loosest class comes first"
    assert len(table["rows"]) == 500
    assert "of up to" not in _words(text), "100 records of 12 runs fit"


def test_thinned_curves_are_said_to_be(tmp_path):
    """Of many records every curve keeps the first, the last, and as many as fit."""
    rows = [made_runs.row(e, "train", spectrum=None) for e in range(9000)]
    text, data = _page(made_runs.write_run(tmp_path / "run", epochs=8999, rows=rows))
    x = data["charts"][0]["series"][0]["x"]
    assert (x[0], x[-1]) == (0, 8999)
    assert len(x) == 100_000 // (2 * 9)
    assert f"{len(x):,} of up to 9,000 records" in _words(text)
    assert len(text) < 3_000_000


def test_hostile_names_are_text(tmp_path):
    """Names of runs, tasks and settings cannot become markup, nor end the script with the data."""
    evil = "</script><img src=x onerror=alert(1)>"
    made_runs.write_run(
        tmp_path / "a",
        config={"data": {"source": evil}},
        tasks={evil: 0.5},
        rows=[made_runs.row(0, "train", warnings=[f"VCI {evil}"])],
    )
    text, data = _page(tmp_path / "a")
    assert evil not in text
    assert text.count("</script>") == 3
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert data["runs"] == ["a"]


def test_a_cut_off_line_is_left_out_and_said(tmp_path):
    """A killed run gives the rows before it, and the page is that of an unfinished run."""
    run = made_runs.write_run(tmp_path / "run", epochs=9, rows=[made_runs.row(0, "train")])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "spl')
    words = _words(_page(run)[0])
    assert "line 2, the last, is cut off and left out" in words
    assert "Nothing recorded yet" in words  # Of the test split.


def test_a_run_without_rows_says_why_each_panel_is_empty(tmp_path):
    """An empty metrics.jsonl is that of a run which has just begun."""
    run = made_runs.write_run(tmp_path / "run", rows=[])
    text, data = _page(run)
    assert all(not chart["series"] for chart in data["charts"])
    assert text.count("Nothing is recorded yet: metrics.jsonl has no complete row.") >= 8
    assert "No spectra" in text


def test_missing_and_undefined_metrics_have_their_reason(tmp_path):
    """Not recorded, and undefined with the sentence of the report, are told apart."""
    said = "All class means coincide: fuzziness and squared distance are undefined."
    rows = [made_runs.row(0, s, fuzziness=None, warnings=[said]) for s in ("train", "test")]
    for row in rows:
        del row["class_separation"]
    text, data = _page(made_runs.write_run(tmp_path / "run", rows=rows))
    reasons = {chart["id"]: chart["reason"] for chart in data["charts"]}
    assert reasons["fuzziness"] == f"No value at any epoch: {said}"
    assert reasons["class_separation"] == "No value at any epoch: this run did not record it."
    assert reasons["vci"] == ""
    assert tables.DASH in _words(text)


@pytest.mark.parametrize(
    ("changes", "metric", "sentence"),
    [
        ({"kept_rank": 12}, "vci", "Rank cut: 12 of 16 directions"),
        ({"samples": 300}, "samples", "Thin evidence: 30 images a class"),
        ({"vci_interval": [None, None]}, "vci_adjusted", "No interval"),
        ({"warnings": ["20 samples bias VCI down by 0.5."]}, "vci", "bias VCI down"),
        ({"warnings": ["3 rows with NaN or infinity were left out."]}, "samples", "3 rows"),
        (
            {
                "warnings": ["Undefined here: cdnv."],
                "caveats": [{"code": "undefined", "metrics": ["fuzziness"], "message": "No VCI."}],
            },
            "fuzziness",
            "No VCI.",
        ),
    ],
)
def test_warnings_stand_by_the_number_they_concern(tmp_path, changes, metric, sentence):
    """Each in its own words, in the notes of the metric and on the page."""
    row = made_runs.row(4, "test", **changes)
    assert any(sentence in note for note in caveats.notes(row)[metric])
    assert caveats.notes(made_runs.row(4, "test")) == {}
    run = made_runs.write_run(tmp_path / "run", rows=[made_runs.row(4, "train"), row])
    assert sentence in _words(_page(run)[0])


def test_a_warning_about_two_numbers_of_a_card_stands_there_once(tmp_path):
    caveat = {"code": "a", "metrics": ["vci", "vci_adjusted"], "message": "Digits are lost."}
    rows = [made_runs.row(4, split, caveats=[caveat]) for split in ("train", "test")]
    run = made_runs.write_run(tmp_path / "run", rows=rows)
    cards = _page(run)[0].partition('<div class="cards">')[2].partition("<details>")[0]
    assert cards.count("Digits are lost.") == 2  # A card for each split.


def test_wilson_interval():
    """Against statsmodels, at the boundary too."""
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for correct, count in ((360, 360), (45, 50), (0, 10)):
        row = {"accuracy": correct / count, "samples": count}
        expected = proportion.proportion_confint(correct, count, method="wilson")
        assert caveats.accuracy_interval(row) == pytest.approx(expected, abs=1e-7)


def test_a_group_lists_what_differs(tmp_path):
    """The page of a group lies above its runs; temperature differs, the seed does not."""
    made_runs.write_group(tmp_path / "group", runs=3)
    runs = read_runs([tmp_path / "group"])
    assert command.default_path(runs) == (tmp_path / "group" / "report.html").resolve()
    varied = tables.config_table(runs)["varied"]
    assert varied == {"loss.temperature": ["0.1", "0.2", "0.3"]}
    shared = {row["field"]: row for row in tables.config_table(runs)["shared"]}
    assert (shared["seed"]["value"], shared["seed"]["set"]) == ("0", False)
    assert shared["epochs"]["set"], "4 is not the default of 300"
    words = _words(_page(tmp_path / "group")[0])
    assert "Each setting has one run" in words


def test_means_of_two_kinds_are_not_compared(tmp_path):
    """If one run has no accuracy, the row is MLO for all of them."""
    runs = made_runs.write_group(tmp_path / "group", runs=2)
    (runs[1] / "metrics.jsonl").write_text("")
    table = tables.scores(read_runs([tmp_path / "group"]))
    assert table["mean_name"] == "MLO"
    expected = [
        np.mean(np.log([0.9 / 0.1, 0.6 / 0.4])),
        np.mean(np.log([0.88 / 0.12, 0.57 / 0.43])),
    ]
    assert [mean["text"] for mean in table["means"]] == [f"{mean:.2f}" for mean in expected]


def test_the_best_of_each_task_is_marked(tmp_path):
    """tau_0 is best at both; a task that one run lacks is out of the mean."""
    runs = made_runs.write_group(tmp_path / "group", runs=3)
    with (runs[1] / "transfer.jsonl").open("a") as file:
        file.write(json.dumps({"run": "tau_1", "task": "dtd", "score": 0.7}) + "\n")
    table = tables.scores(read_runs([tmp_path / "group"]))
    best = [[cell["best"] for cell in run["cells"]] for run in table["runs"]]
    assert best == [[True, True, False], [False, False, False], [False, False, False]]
    assert [mean["best"] for mean in table["means"]] == [True, False, False]
    assert table["shared"] == 2
    assert table["runs"][0]["cells"][2] == {
        "text": tables.DASH,
        "best": False,
        "detail": "not probed",
    }


def test_transfer_score_is_mlog():
    """Against the formula of the paper, on a score and an accuracy of 0.8 and 0.5."""
    rows, scores = [made_runs.row(0, "test", accuracy=0.5)], [{"task": "pets", "score": 0.8}]
    run = Run("run", "group", Path(), {}, rows, scores, [])
    score = functools.partial(tables.transfer_score, run)
    assert score(["pets"], gain=True) == pytest.approx(1.3862943611)  # log 4
    assert score(["cars"], gain=True) is None
    worse = run._replace(rows=[made_runs.row(0, "test", accuracy=0.8)])
    assert tables.transfer_score(worse, ["pets"], gain=True) == pytest.approx(0.0)
    assert tables.transfer_score(worse, ["pets"], gain=False) == pytest.approx(1.3862943611)


def test_the_gain_is_over_the_accuracy_of_the_scores_step(tmp_path):
    (run,) = read_runs([made_runs.write_run(tmp_path / "run", tasks={"pets": 0.8})])
    run.transfer[0]["step"] = 22
    early = run._replace(rows=[row for row in run.rows if row["step"] <= 22])
    score = tables.transfer_score(run, ["pets"], gain=True)
    assert score == tables.transfer_score(early, ["pets"], gain=True)
    run.transfer[0]["step"] = None
    assert score != tables.transfer_score(run, ["pets"], gain=True)


def test_the_scatter_is_that_of_the_runs(tmp_path):
    """By rising VCI, with the run of each point, and NumPy's coefficient; five runs are few."""
    made_runs.write_group(tmp_path / "group", runs=5)
    runs = read_runs([tmp_path / "group"])
    charts, said = scatter.scatters(runs)
    points = charts[0]["points"]
    assert [point["run"] for point in points] == [4, 3, 2, 1, 0]
    assert {point["group"] for point in points} == {"temperature"}
    assert points[0]["x"] == pytest.approx(0.5 * 0.6 / 5)
    x, y = ([point[axis] for point in points] for axis in "xy")
    (told,) = charts[0]["strengths"]
    assert told["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-4)
    assert (told["runs"], told["spearman"]) == (5, pytest.approx(1.0))
    assert told["low"] <= told["pearson"] <= told["high"]
    assert charts[0]["notes"] == ["Thin evidence in temperature: 5 runs, one seed a setting."]
    assert any("n = 5 is thin evidence" in sentence for sentence in said)


@pytest.mark.parametrize(("runs", "reason"), [(2, "a correlation takes three"), (3, "")])
def test_few_runs_have_a_page_too(tmp_path, runs, reason):
    """Three have a coefficient that proves nothing; two have the reason why they have none."""
    made_runs.write_group(tmp_path / "group", runs=runs)
    text, data = _page(tmp_path / "group")
    chart = data["scatters"][0]
    assert reason in chart["reason"]
    assert len(chart["strengths"]) == (runs > 2)
    assert ("p = 0.33" in _words(text)) == (runs == 3), "2 / 3!, the smallest there is"


def test_runs_that_were_not_probed_have_empty_scatters(tmp_path):
    """With the names of the runs, the reason, and the command that helps."""
    for name in ("a", "b"):
        made_runs.write_run(tmp_path / name)
    reason = _page(tmp_path)[1]["scatters"][0]["reason"]
    assert "a: left out, it has no scores" in reason
    assert "python -m probes transfer" in reason


def test_classes_and_machine_may_be_missing(tmp_path):
    """As in the directories of older versions; a damaged file is one too."""
    run = made_runs.write_run(tmp_path / "run")
    (found, _), missing = classes.tables([read_run(run)])
    assert found["rows"][0][:3] == ["class 3", 100, 0.97]
    assert found["rows"][0][7] == "class 4"
    assert missing == []
    record = json.loads((run / "per_class.json").read_text())
    for split in tables.SPLITS:
        del record[split]["name"], record[split]["accuracy"]
    (run / "per_class.json").write_text(json.dumps(record))
    (found, _), _ = classes.tables([read_run(run)])
    assert found["rows"][0][:3] == [3, 100, None]
    words = _words(_page(run)[0])
    assert "NVIDIA Test" in words
    assert "flax not installed" in words
    (run / "per_class.json").write_text("{")
    (run / "run.json").unlink()
    words = _words(_page(run)[0])
    assert "per_class.json is damaged" in words
    assert "there is no run.json" in words


def test_a_directory_without_runs_is_an_error(tmp_path, capsys):
    """Exit code 2, and the remedy, without a traceback."""
    assert command.main([str(tmp_path)]) == 2
    assert "give work directories" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_watch_follows_a_run_to_its_end(tmp_path, monkeypatch):
    """Written for each change and no other; the last page stops renewing itself."""
    rows = [made_runs.row(e, s) for e in range(3) for s in ("train", "test")]
    run = made_runs.write_run(tmp_path / "run", epochs=2, rows=rows[:2])
    pages, looks = [], threading.Event()
    write = command.write

    def record(runs, out, *, refresh=0):
        write(runs, out, refresh=refresh)
        pages.append((len(runs[0].rows), refresh))

    def sleep(_):
        if looks.is_set():  # Every second look finds something new.
            with (run / "metrics.jsonl").open("a") as file:
                for row in rows[len(_lines(run)) :][:2]:
                    file.write(json.dumps(row) + "\n")
            looks.clear()
        else:
            looks.set()

    monkeypatch.setattr(command, "write", record)
    monkeypatch.setattr(command.time, "sleep", sleep)
    command.watch([run], run / "report.html", 7)
    assert pages == [(2, 7), (4, 7), (6, 0)]
    assert '"refresh":0' in (run / "report.html").read_text()
    assert not (run / "report.html.partial").exists()


def _lines(run):
    return (run / "metrics.jsonl").read_text().splitlines()
