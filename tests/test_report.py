"""The report of the main job, from synthetic results: complete, self-contained, honest about what failed."""

import copy
import html.parser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
sys.path.insert(0, str(Path(__file__).parents[1]))
from experiments.closure import figures, film, report, tables  # noqa: E402

N, RINGS = 16, 10
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = (
    *("Verdict", "Scores", "Fields", "Animation", "Energy in time", "Spectra", "Energy budget", "Distributions"),
    *("Training", "Amplitudes", "Similarities", "Configuration"),
)


def model(kind, family, error, seed):
    """A model whose errors are (error, 2·error)."""
    rng = np.random.default_rng(seed)
    k = np.arange(1, RINGS + 1)
    q = 1e-5 * rng.standard_normal((2, N, N))
    spectra = {name: 1e-6 * np.sin(k) for name in ("KEflux", "APEflux", "APEgenspec", "KEfrictionspec", "Filterspec")}
    if kind not in ("truth", "none"):
        spectra |= {name: 1e-7 * np.cos(k) for name in ("paramspec", "paramspec_KEflux", "paramspec_APEflux")}
    out = {
        "kind": kind, "family": family, "q": q, "time": np.linspace(0, 10, 30), "ke": 6e-4 + 1e-5 * rng.random(30),
        "spectra": spectra | {n: np.stack([k**-3.0, k**-4.0]) for n in ("KEspec", "Ensspec")},
        "pdf": figures.densities({name: np.stack([q, -q]) for name in "quv"}, bins=11),
    }  # fmt: skip
    if kind == "truth":
        return out
    similar = {name: 1 - error * i for i, name in enumerate(tables.NAMES)}
    scores = {"errors": {"distributional": error, "spectral": 2 * error}, "similarities": similar}
    return out | scores | {"survivors": (5, 5), "ms_per_step": 0.1 + error, "blew_up": None}


@pytest.fixture(scope="module")
def results():
    rows = {
        "Truth": ("truth", "Truth", 0), "No closure": ("none", "No closure", 0.1), "Leith": ("classical", "Leith", 0.3),
        "Leith (tuned)": ("tuned", "Leith", 0.05), "Offline network": ("offline", "", 0.06),
        "Online network": ("online", "", 0.02),
    }  # fmt: skip
    models = {name: model(*row, seed) for seed, (name, row) in enumerate(rows.items())}
    models["Leith"] |= {"amplitude": 1.0}
    models["Leith (tuned)"]["errors"] = {"distributional": 0.01, "spectral": 0.5}
    steps = np.arange(60)
    online = {"loss": np.where(steps == 33, np.nan, 1.0), "skipped": [33], "horizons": [(0, 4), (30, 9)]}
    sweep = {"distributional": [0.1, 0.01, np.nan], "spectral": [0.2, 0.1, np.nan], "published": 1.0, "best": 0.5}
    frames = {name: np.stack([models[name]["q"][0]] * 4) for name in ("Truth", "Online network")}
    return {
        "title": "A <title> & more", "abstract": "First.\n\nSecond.", "length": 1e6, "models": models,
        "wavenumber": 8.9e-6 * (np.arange(RINGS) + 0.5), "truth": np.zeros((2, 2 * N, 2 * N)) + 1e-5,
        "config": {"truth": {"n": 32, "dt": 3600.0}, "seed": 0},
        "provenance": {"git": "abc", "versions": {"jax": "0.10.2"}, "stages": {"truth": 12.5, "training": 30.0}},
        "animation": {"time": np.arange(4) * 1.5, "frames": frames},
        "training": {"Offline network": {"step": steps, "loss": np.exp(-steps / 20)},
                     "Online network": {"step": steps} | online},
        "tuning": {"Leith": {"amplitude": [0, 0.5, 1]} | sweep},
        "published": {"errors": {"VAE": (0.0208, 0.0692), "None there": None},
                      "similarities": {"Hybrid": dict.fromkeys(tables.NAMES, 0.7)}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    path = report.write_report(tmp_path_factory.mktemp("report") / "report.html", results)
    return path, path.read_text(encoding="utf-8")


class Elements(html.parser.HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_every_section_is_there_and_in_the_contents(page):
    headings = re.findall(r"<h2>(.*?)</h2>", page[1])
    assert headings == list(SECTIONS), f"sections {headings}"
    tags = Elements(page[1]).tags
    anchors = {a["href"][1:] for tag, a in tags if tag == "a"}
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids)) and anchors <= set(ids), f"contents without target: {anchors - set(ids)}"


def test_the_page_needs_nothing_from_elsewhere(page):
    for tag, attributes in Elements(page[1]).tags:
        for name in ("src", "href", "srcset", "data", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value
            assert "http" not in value[:60], f"<{tag} {name}={value[:60]}>"
        assert tag not in ("link", "iframe", "object", "embed"), f"<{tag}> loads something"
    assert "@import" not in page[1] and not re.search(r"url\((?!data:)", page[1])


def test_the_page_stays_small(page):
    size = page[0].stat().st_size / 1e6
    assert size < 3, f"{size:.2f} MB from {N}² fields"


def test_every_figure_has_a_caption_and_an_alternative_text(page):
    tags = Elements(page[1]).tags
    images = [a for tag, a in tags if tag == "img"]
    assert len(images) >= 9 and all(len(a.get("alt", "")) > 20 for a in images)
    count = {tag: sum(t == tag for t, _ in tags) for tag in ("figure", "figcaption")}
    assert count["figure"] == count["figcaption"] == len(images) + 1, f"{count}, {len(images)} images and the player"


def test_text_is_escaped(page):
    assert "A &lt;title&gt; &amp; more" in page[1] and "<title> & more" not in page[1]


def test_the_score_table_shows_the_numbers_beside_the_published_ones(page):
    scores = page[1].split('id="scores"')[1].split("<figure")[0]
    for text in ("0.0200", "0.0400", "5 of 5", "0.120", "0.60", "0.0208", "0.0692", "None there", tables.PEREZHOGIN):
        assert text in scores, f"{text} is missing"
    best = re.findall(r'<td class="best">(.*?)</td>', scores)
    assert best == ["0.0100", "0.0400"], f"best errors marked: {best}"


def test_the_similarity_table_has_all_eighteen_shaded(page):
    table = page[1].split('id="similarities"')[1]
    row = table.split("Online network")[1].split("</tr>")[0]
    assert row.count('class="shade"') == 18 == len(tables.NAMES)
    assert "rgb(94,160,214)" in row, "a similarity of one is not in full blue"


def test_the_verdict_follows_the_numbers(results):
    sentences = [text.replace("\xa0", " ") for text in report.verdict(results)]
    online = [text for text in sentences if text.startswith("Online network")]
    assert any("both errors lower than" in t and "No closure" in t and "Offline network" in t for t in online)
    only = [t for t in online if "lower spectral but no lower distributional" in t]
    assert len(only) == 1 and "Leith (tuned) (0.0100 / 0.5000)" in only[0], only
    offline = [text for text in sentences if text.startswith("Offline network")]
    assert any("in neither error better than Online network" in text for text in offline), offline


@pytest.mark.parametrize("tested", [True, False])
def test_survivors_have_a_column_where_they_were_counted(results, tested):
    """All rows, published ones too, keep as many cells as there are heads."""
    some = copy.deepcopy(results)
    for one in some["models"].values():
        tested or one.pop("survivors", None)
    text = tables.scores(some)
    assert ("survived" in text) == tested
    rows = [row for row in re.findall(r"<tr.*?</tr>", text, re.S) if "colspan" not in row]
    assert len(rows) > 5 and {len(re.findall(r"<t[hd][ >]", row)) for row in rows} == {8 + tested}


def test_several_runs_are_printed_with_their_range_and_counted_in_the_verdict(results):
    several = copy.deepcopy(results)
    runs = lambda *errors: [{"distributional": e, "spectral": 2 * e} for e in errors]
    several["models"]["Online network"]["runs"] = runs(0.02, 0.03, 0.05)
    several["models"]["No closure"]["runs"] = runs(0.04, 0.04, 0.04)
    assert "<small>0.0200 to 0.0500</small>" in tables.scores(several)
    assert any("; both in 2 of 3 runs" in text for text in report.verdict(several)), report.verdict(several)


def test_a_model_that_blew_up_says_so_everywhere(results, tmp_path):
    broken = copy.deepcopy(results)
    leith = broken["models"]["Leith"]
    leith |= {"blew_up": {"field": "q", "step": 31200}, "survivors": (0, 5), "q": leith["q"] * np.nan, "pdf": {}}
    leith["ke"] = np.where(leith["time"] < 3, leith["ke"], np.nan)
    leith["spectra"] = {name: a * np.nan for name, a in leith["spectra"].items()}
    leith["errors"] = {"distributional": np.nan, "spectral": np.nan}
    del leith["similarities"]
    text = text_of(report.write_report(tmp_path / "r.html", broken).read_text(encoding="utf-8"))
    assert text.count("blew up at step 31,200") >= 3, "not in verdict, scores and similarities"
    assert "0 of 5" in text and not re.search(r"\bnan\b", text, re.IGNORECASE)
    crosses = [line for line in figures.energy(broken).axes[0].lines if line.get_marker() == "x"]
    assert len(crosses) == 1 and crosses[0].get_xdata()[0] < 3
    shown = {t.get_text() for ax in figures.maps(broken, 0).axes for t in ax.texts}
    assert "blew up\nat step 31,200" in shown, f"texts in the maps: {shown}"


def test_a_report_of_the_least_still_stands(results, tmp_path):
    least = {name: results[name] for name in ("title", "abstract", "length", "wavenumber")}
    least["models"] = {name: {"kind": kind} for name, kind in (("Truth", "truth"), ("Online network", "online"))}
    page = report.write_report(tmp_path / "r.html", least).read_text(encoding="utf-8")
    assert "Online network has no scores" in page and 'id="animation"' not in page
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"], "the partial file is still there"


def test_what_is_missing_is_named_before_anything_is_written(results, tmp_path):
    with pytest.raises(ValueError, match="'wavenumber'"):
        report.write_report(tmp_path / "r.html", {k: v for k, v in results.items() if k != "wavenumber"})
    assert not list(tmp_path.iterdir())


def test_the_headline_has_fields_spectrum_and_scores(results, tmp_path):
    figure = report.headline(tmp_path / "h.png", results)
    titles = [ax.get_title("left") for ax in figure.axes]
    assert titles[:3] == ["Truth", "No closure", "Online network"] and "KE spectrum" in titles[3], titles
    assert titles[4:] == ["distributional error", "spectral error"]
    assert [len(ax.patches) for ax in figure.axes[4:]] == [5, 5], "a bar per model but the truth"
    size = (tmp_path / "h.png").stat().st_size
    assert size < 400_000, f"{size} bytes"


def test_fourier_refinement_keeps_the_points_and_is_exact_between_them():
    x = 2 * np.pi * np.arange(16) / 16
    fine = 2 * np.pi * np.arange(64) / 64
    wave = lambda y, x: np.sin(3 * x + 2 * y) + 0.5
    a = figures.refined(wave(x[:, None], x), 4)
    gap = np.abs(a - wave(fine[:, None], fine)).max()
    assert gap < 1e-12, f"off by {gap}"


def test_densities_integrate_to_one_per_layer():
    fields = {"q": np.random.default_rng(1).standard_normal((3, 2, 8, 8)) * np.array([1, 5])[:, None, None]}
    edges, density = figures.densities(fields)["q"]
    total = (density * np.diff(edges)).sum(1)
    assert np.allclose(total, 1), f"integrals {total}"
    assert np.array_equal(figures.densities(fields, {"q": (edges, density)})["q"][0], edges)


def test_a_long_animation_is_thinned_to_what_browsers_take(results):
    long = {"time": np.arange(600), "frames": {"Truth": np.random.default_rng(2).standard_normal((600, 16, 16))}}
    player = film.player({"animation": long})
    frames = int(re.search(r'max="(\d+)"', player).group(1)) + 1
    assert frames * 32 <= film.TALLEST and frames == 300, f"{frames} frames"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page in a real browser; none is installed")
def test_a_real_browser_plays_the_animation_and_fits_a_narrow_window(page, tmp_path):
    probe = "<script>setTimeout(() => { document.title = [document.documentElement.scrollWidth, innerWidth, document"
    probe += ".querySelector('output').textContent, document.querySelector('#film button').textContent, [...document"
    probe += ".images].every(i => i.naturalWidth > 0)].join('|'); }, 1500)</script></body>"
    path = tmp_path / "probe.html"
    path.write_text(page[1].replace("</body>", probe), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    width, window, day, button, loaded = re.search(r"<title>(.*?)</title>", dom).group(1).split("|")
    assert int(width) <= int(window), f"the page is {width} px wide in a window of {window}"
    assert day.startswith("day ") and button == "Pause" and loaded == "true", (day, button, loaded)
