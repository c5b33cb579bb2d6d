"""The page of a ranking: what it says, and that nothing is cut off in a browser.

Screenshots go to the folder that ``VCI_SCREENSHOTS`` names, else to pytest's own.
"""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from probes.page import ranking as page
from vci_jax.probe import ModelScore, Pair, Ranking

NAMES = ("resnet50", "runs/a rather long name of a run/<b>seed</b> 0", "vit_small", "random")
ACCURACY = (0.912, 0.903, 0.82, 0.1)
SIZE = 400


def made():
    """Two models at the top that tie, one behind them, one at chance; a warning, no logits."""
    rng = np.random.default_rng(0)
    models = tuple(
        ModelScore(
            model=name, rank=place + 1, accuracy=value,
            accuracy_interval=(value - 0.03, value + 0.03),
            ties_with_best=place < 2, knn_accuracy=value - 0.02, ncc_accuracy=value - 0.05,
            vci=0.2 + 0.1 * place, vci_interval=(0.19 + 0.1 * place, 0.21 + 0.1 * place),
            h_score=8.0 - place, logme=0.5 - 0.1 * place, leep=None if place else -0.7,
            nce=None if place else -0.8, dim=512, train_size=320, penalties=(0.1,),
            curve=((32, value / 2), (96, value / 1.5)),
            warnings=("the chosen penalty 1e+06 is at an end of the grid.",) if place == 3 else (),
            seconds=1.0, correct=(rng.uniform(size=SIZE) < value).astype(float),
        )
        for place, (name, value) in enumerate(zip(NAMES, ACCURACY, strict=True))
    )  # fmt: skip
    pairs = (
        Pair(NAMES[0], NAMES[1], 0.009, (-0.01, 0.028), 0.41, 5210.0),
        Pair(NAMES[0], NAMES[2], 0.092, (0.06, 0.12), 2e-4, 60.0),
        Pair(NAMES[0], NAMES[3], 0.812, (0.77, 0.85), 3e-90, 5.0),
    )
    return Ranking(models, pairs, SIZE, "Two repeats of 5-fold cross-fitting.", 0.95,
                   rng.integers(0, 10, SIZE))  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the made ranking, on disk."""
    rng = np.random.default_rng(1)
    ranking = made()
    text = page.render(
        ranking,
        data="folder:photos of hand signs",
        classes=[f"sign {place}" for place in range(10)],
        mistakes=[
            page.Mistake(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8), f"{n}/IMG.JPG", "3", ())
            for n in range(5)
        ],
        planes=[
            page.plane(name, rng.standard_normal((SIZE, 12)), ranking.labels) for name in NAMES
        ],
        failures=[("resnet18=a.pth", "no such file")],
        command="python -m probes rank resnet50=a.pth --data folder:photos",
    )
    path = tmp_path_factory.mktemp("page") / "rank.html"
    path.write_text(text)
    return path


def test_the_page_says_what_was_found(written):
    text = written.read_text()
    assert "&lt; 0.001" in text
    assert "0.000" not in text
    assert "<b>seed</b>" not in text
    assert "resnet18=a.pth has no score: no such file" in text
    # Below the table, whose first column it would make a column of single words.
    assert text.index("at an end of the grid.") > text.index("</table>", text.index("LogME"))
    assert "test images needed" in text


def test_labels_of_the_axis_are_inside_the_picture():
    """Half a label of six characters of 12 px is 20 px wide."""
    picture = str(page._accuracies(made(), dict.fromkeys(NAMES, "model")))
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)" [^>]*middle', picture)]
    assert min(places) > 20
    assert max(places) < 640 - 20


# Points and words of the charts that lie beyond the window or their own frame.
_CUT = """[...document.querySelectorAll('.figure circle, .figure text')].filter(mark => {
  const box = mark.getBoundingClientRect(), frame = mark.closest('.figure').getBoundingClientRect();
  const clipped = getComputedStyle(mark.closest('.figure')).overflow == 'hidden';
  const [low, high] = clipped ? [frame.left, frame.right] : [0, innerWidth];
  return box.width && (box.left < low || box.right > high);
}).map(mark => mark.outerHTML)"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(written, tmp_path, width, scheme):
    """No message, no request, no scrolling sideways."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: extra [dev]")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    complaints = []
    with sync_api.sync_playwright() as playwright:
        arguments = ("--no-sandbox", "--disable-gpu", "--no-first-run")
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
        tab.goto(f"file://{written}")
        folder = pathlib.Path(os.environ.get("VCI_SCREENSHOTS", tmp_path))
        tab.screenshot(path=folder / f"rank-{width}-{scheme}.png", full_page=True)
        wide = tab.evaluate("document.documentElement.scrollWidth")
        cut = tab.evaluate(_CUT)
        browser.close()
    assert [text for text in complaints if not text.startswith("data:")] == []
    assert wide <= width
    assert cut == []
