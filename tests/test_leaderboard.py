"""The leaderboard from made-up rows: seeds together, versions apart, failures and published numbers, one whole page."""

import copy
import html.parser
import json
import re
import sys
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest

pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parents[1]))

import hybridgcm as hg  # noqa: E402
from experiments.closure.tables import NAMES  # noqa: E402
from experiments.closure_benchmark import boards, collect, leaderboard, published, ship, tables  # noqa: E402
from hybridgcm import checkpoint, nn  # noqa: E402
from hybridgcm.pretrained import card, pretrained  # noqa: E402

SYSTEM, RINGS = "eddy64-op1-14400", 23


def spectra(factor):
    k = np.arange(1, RINGS + 1)
    layers = {n: (factor * np.stack([k**-3.0, k**-4.0])).tolist() for n in ("KEspec", "Ensspec")}
    return layers | {n: (factor * 1e-8 * np.sin(k)).tolist() for n in ("KEflux", "APEflux", "APEgenspec", "paramspec")}


def free(errors, runs=10, amplitude=1.0):
    pair = dict(zip(("distributional", "spectral"), errors))
    similar = {name: 1 - errors[0] * i for i, name in enumerate(NAMES)}
    whole = {"errors": pair, "similarities": similar, "spectra": spectra(1 + errors[0]), "single": [pair] * runs}
    return {"finished": runs, "runs": runs, "amplitude": amplitude} | whole


def row(method="cnn", seed=0, errors=(0.02, 0.1), **changes):
    none = method == "none"
    return {
        "system": SYSTEM, "method": method, "title": method.title(), "seed": seed, "kind": "closure",
        "seeded": not none, "trained_on": None, "data": "aaaa", "protocol": "1", "code": "c0de" * 16,
        "environment": {"jax": "1", "device": "cpu"},
        "date": "2026-01-01", "training_seconds": 0.0 if none else 60.0 + seed, "ms_per_step": 0.3, "ms_without": 0.1,
        "unit": free(errors), "tuned": free([e / 2 for e in errors], amplitude=0.5), "forecast_days": 20.0 + seed,
        "offline": {"R2": [0.8, 0.9], "correlation": [0.9, 0.95]},
        "survival": {"attempts": 10, "survivors": 9, "first_bad_step": [None] * 9 + [5], "reason": [""] * 9 + ["q"]},
    } | changes  # fmt: skip


def failed(seed=1, reason="ValueError: expected (2, 64, 64) <b>"):
    return {k: v for k, v in row("mine", seed).items() if k not in ("unit", "tuned", "offline", "survival")} | {
        "failed": reason
    }


def seeds(method="cnn", count=5, **changes):
    return [row(method, seed, (0.02 + 0.002 * seed, 0.1), **changes) for seed in range(count)]


ROWS = [row("none", errors=(0.09, 0.22)), *seeds(), failed()]


def put(root, rows):
    for one in rows:
        label = one["method"] + (f"@{one['trained_on']}" if one["trained_on"] else "")
        folder = root / "rows" / one["system"] / f"{label}-{one['data']}" / f"seed-{one['seed']}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "row.json").write_text(json.dumps(one))
    derived = root / "data" / "eddy" / "derived"
    derived.mkdir(parents=True, exist_ok=True)
    arrays = {f"spectra.{name}": np.asarray(a) for name, a in spectra(1.0).items()}
    kr = 8.9e-6 * (np.arange(RINGS) + 0.5)
    np.savez(derived / "reference-64-op1-aaaa.npz", kr=kr, limit=1.3e-4, **arrays)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    transfer = [row("cnn", 0, (0.05, 0.4), system="jet64-op1-14400", trained_on=SYSTEM, data="jjjj"),
                row("none", 0, (0.1, 0.2), system="jet64-op1-14400", data="jjjj")]  # fmt: skip
    root = put(tmp_path_factory.mktemp("run"), [*ROWS, *transfer])
    return root, leaderboard.write(root).read_text(encoding="utf-8")


def one(rows, method):
    (board,) = boards.boards(rows)
    return next(entry for entry in board["entries"] if entry["method"] == method)


def test_seeds_are_averaged_with_their_spread_and_everything_counted():
    entry = one(ROWS, "cnn")
    error = entry["unit"]["distributional"]
    assert error["mean"] == pytest.approx(0.024)
    assert error["deviation"] == pytest.approx(np.std([0.02, 0.022, 0.024, 0.026, 0.028], ddof=1))
    assert (entry["unit"]["finished"], entry["unit"]["runs"], entry["scored"]) == (50, 50, 5)
    assert entry["survival"] == {"survivors": 45, "attempts": 50}
    assert entry["cost"]["mean"] == pytest.approx(3.0) and entry["tuned"]["amplitude"]["mean"] == 0.5
    assert entry["similarities"]["u1"] == pytest.approx(1 - 2 * 0.024)


def test_a_seed_that_did_not_finish_is_counted_but_not_averaged():
    rows = copy.deepcopy(seeds())
    rows[0]["unit"] = {"finished": 7, "runs": 10, "amplitude": 1.0}
    entry = one(rows, "cnn")
    assert (entry["scored"], entry["unit"]["finished"], entry["unit"]["runs"]) == (4, 47, 50)
    assert entry["unit"]["distributional"]["mean"] == pytest.approx(np.mean([0.022, 0.024, 0.026, 0.028]))
    assert "4 of 5" in tables.markdown(boards.boards(rows)[0])


def test_the_order_is_by_error_with_no_closure_first_and_failures_last():
    entries = boards.boards([*ROWS, row("better", errors=(0.001, 0.001))])[0]["entries"]
    assert [entry["method"] for entry in entries] == ["none", "better", "cnn", "mine"]


@pytest.mark.parametrize("name", ["data", "protocol"])
def test_versions_are_never_in_one_table(name, tmp_path):
    rows = [*ROWS, *(one | {name: "bbbb"} for one in seeds(count=2))]
    found = boards.boards(rows)
    assert len(found) == 2 and [len(board["entries"]) for board in found] == [3, 1]
    assert any("2 versions" in text and "bbbb" in text for text in boards.warnings(found))
    page = leaderboard.write(put(tmp_path, rows) if name == "data" else _compact(tmp_path, rows)).read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert sum(SYSTEM in heading and name in heading for heading in headings) == 2
    assert page.index("must not be compared") < page.index("<h2>" + SYSTEM)


def _compact(folder, rows):
    collect.write({"rows": [collect.compact(one) for one in rows], "truths": {}}, folder)
    return folder


def test_one_version_has_no_such_warning():
    assert not any("versions" in text for text in boards.warnings(boards.boards(ROWS)))


def test_few_seeds_are_marked():
    assert boards.enough(one(ROWS, "cnn")) and boards.enough(one(ROWS, "none"))
    assert not boards.enough(one(seeds(count=4), "cnn"))
    assert not boards.enough(one([row("none", unit=free((0.1, 0.2), runs=3))], "none"))


def test_failures_stand_with_their_reason(made):
    markdown = (made[0] / "leaderboard.md").read_text()
    assert "Failed: mine, seed 1: ValueError: expected (2, 64, 64)" in markdown
    assert "expected (2, 64, 64) &lt;b&gt;" in made[1] and "(2, 64, 64) <b>" not in made[1]


def test_published_rows_are_marked_with_their_source(made):
    board = boards.boards(ROWS)[0]
    assert board["published"]["VAE, 1000 epochs"] == [0.0114, 0.0357]
    markdown = (made[0] / "leaderboard.md").read_text()
    assert "| VAE, 1000 epochs, published |" in markdown and "doi:10.1029/2023MS003681" in markdown
    assert 'tr class="published"' in made[1] and "0.0114" in made[1]


def test_published_numbers_are_those_of_the_bars():
    assert published.errors("eddy64-op2-14400")["VAE, 1000 epochs × .5"] == (0.0240, 0.1174)
    assert published.errors("jet48-op1-14400")["No closure"] == (0.1293, 0.2923)
    assert published.best("eddy64-op1-3600") == (0.0208, 0.0692)
    assert published.similarities("eddy64-op1-3600") and not published.similarities("eddy96-op1-3600")
    assert not published.errors("mix50-64-op1-14400")


def test_no_closure_stands_beside_the_published_one():
    heads, (line,) = tables.yardstick(boards.boards(ROWS))
    assert line[0] == SYSTEM and line[3] == "0.0900 / 0.0890, +1 %"


def test_the_page_needs_nothing_from_elsewhere_and_has_every_figure(made):
    class Tags(html.parser.HTMLParser):
        found = []

        def handle_starttag(self, tag, attrs):
            self.found.append((tag, dict(attrs)))

    Tags().feed(made[1])
    for tag, attributes in Tags.found:
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), f"<{tag} {name}=...>"
        assert tag not in ("link", "iframe", "object", "embed")
    assert "@import" not in made[1] and not re.search(r"url\((?!data:)", made[1])
    captions = " ".join(re.findall(r"<figcaption>(.*?)</figcaption>", made[1]))
    for words in (
        "kinetic energy spectra",
        "energy budget",
        "cost of a step",
        "offline R²",
        "18 similarities",
        "trained on",
    ):
        assert words in captions, words


def test_calibration_has_columns_where_a_row_has_it():
    rows = [*ROWS, *seeds("gan", calibration={"CRPS": 0.4, "spread_over_skill": 0.9, "note": "text"})]
    text = tables.markdown(boards.boards(rows)[0])
    assert "spread over skill" in text and "0.9 ± 0" in text and "note" not in text
    assert "CRPS" not in tables.markdown(boards.boards(ROWS)[0])


def test_the_compact_collection_gives_the_same_leaderboard(made, tmp_path):
    whole = collect.read(made[0])
    files = collect.write(whole, tmp_path)
    assert [file.stem for file in files] == [SYSTEM, "jet64-op1-14400"]
    assert collect.read(tmp_path) == whole
    assert whole["truths"][SYSTEM]["aaaa"]["kr"]
    kept = [one for one in whole["rows"] if "spectra" in one.get("unit", {}) and one["system"] == SYSTEM]
    assert [(one["method"], one["seed"]) for one in kept] == [("cnn", 0), ("none", 0)]
    leaderboard.write(tmp_path, out=tmp_path / "out")
    assert (tmp_path / "out/leaderboard.md").read_text() == (made[0] / "leaderboard.md").read_text()


def test_three_hundred_rows_of_a_system_stay_below_a_megabyte(tmp_path):
    rows = [collect.compact(one) for number in range(60) for one in seeds(f"method_{number}")]
    (file,) = collect.write({"rows": collect._thinned(rows), "truths": {}}, tmp_path)
    assert file.stat().st_size < 1e6


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no rows"):
        leaderboard.write(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="no collection of rows"):
        leaderboard.write(tmp_path)


def test_the_json_has_every_row_with_its_provenance(made):
    found = json.loads((made[0] / "leaderboard.json").read_text())
    assert len(found["rows"]) == len(ROWS) + 2
    assert all(one["code"] and one["environment"] and one["data"] for one in found["rows"])


def test_a_row_is_shipped_with_a_card_that_says_where_it_fails(tmp_path):
    net = nn.CNN((2, 4, 2), (3, 3), key=jr.key(0))
    closure = hg.NetworkClosure(net, ("q",), ("q",))
    good = row("cnn", 0)
    bad = row("cnn", 0, (0.05, 0.4), system="jet64-op1-14400", trained_on=SYSTEM)
    bare = row("none", 0, (0.1, 0.2), system="jet64-op1-14400")
    for one, label in ((good, "cnn"), (bad, f"cnn@{SYSTEM}"), (bare, "none")):
        folder = tmp_path / "rows" / one["system"] / label / "seed-0"
        folder.mkdir(parents=True)
        (folder / "row.json").write_text(json.dumps(one))
    saved = tmp_path / "closures" / SYSTEM / "cnn" / "seed-0" / "closure.ckpt"
    saved.parent.mkdir(parents=True)
    checkpoint.save(saved, closure)
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    ship.ship(tmp_path / "rows" / SYSTEM / "cnn" / "seed-0" / "row.json", "eddy64_cnn", folder=shelf)
    assert pretrained("eddy64_cnn", shelf).inputs == ("q",)
    text = card("eddy64_cnn", shelf)
    assert "- jet64-op1-14400: the spectral error is no better than without closure." in text
    assert "0.0200 / 0.1000" in text and "aaaa" in text


def test_a_row_without_scores_is_not_shipped(tmp_path):
    file = tmp_path / "rows" / SYSTEM / "mine" / "seed-1" / "row.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(failed()))
    with pytest.raises(ValueError, match="has no scores .*expected"):
        ship.ship(file, "mine", folder=tmp_path)
