"""The closure benchmark: names of systems, data of every operator from one cut-off, rows, and closures that fail."""

import json

import jax
import numpy as np
import pytest
from benchmark import METHODS, TINY

from experiments.closure_benchmark import data, ross, rows, systems
from hybridgcm import coarsen
from hybridgcm.files import FolderInUse


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("eddy64", "eddy64-op1-14400"),
        ("jet48-op2", "jet48-op2-14400"),
        ("eddy96", "eddy96-op1-7200"),
        ("mix50-64-op5-3600", "mix50-64-op5-3600"),
    ],
)
def test_a_systems_name_says_all_that_it_is(name, full):
    assert systems.system(name).name == full
    assert systems.system(full) == systems.system(name)


@pytest.mark.parametrize("name", ["eddy", "eddy63", "eddy64-op9", "ocean64", "eddy64-op1-7000"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no system|must divide"):
        systems.system(name)


@pytest.mark.parametrize("operator", list(systems.OPERATORS))
def test_coarser_data_of_every_operator_are_made_from_the_stored_cut_off(operator):
    system = systems.system(f"eddy16-{operator}")
    flow = system.flow
    fine, stored, low = flow.model(64, 3600.0), flow.model(32, 3600.0), system.model()
    y = fine.encode(flow.start(3, 64)).y
    y = {"q": y["q"] + 0.3 * np.roll(y["q"], 5, -1)}
    kept = coarsen.sample(fine, stored, y, coarsen.cutoff)
    made = data._on_grid(stored.equation, low.equation, system.coarsen, {n: np.asarray(kept[n])[None] for n in "qS"})
    wanted = coarsen.sample(fine, low, y, system.coarsen)
    for name in ("q", "S"):
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(made[name][0], wanted[name], atol=1e-5 * scale, rtol=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


def written(root, method, **options):
    return json.loads(rows.row(root, TINY, "eddy16", method, 0, **options).read_text())


def test_a_row_says_what_was_measured_and_from_what(root):
    found = written(root, rows.load_method("smagorinsky", METHODS))
    assert "failed" not in found
    assert found["unit"]["finished"] == found["unit"]["runs"] == 1
    assert {"distributional", "spectral", "KEspec1"} <= set(found["unit"]["errors"])
    assert len(found["unit"]["similarities"]) == 18
    assert found["data"] and found["code"] and found["environment"]["jax"] == jax.__version__
    none = json.loads((root / "rows/eddy16-op1-14400/none/seed-0/row.json").read_text())
    assert none["unit"]["errors"]["distributional"] > 0


def test_similarities_by_the_protocol_of_ross_are_zero_for_no_closure_and_differ_for_one(root, monkeypatch):
    monkeypatch.setattr(rows, "ROSS", (16, 14400.0))
    found = written(root, rows.load_method("backscatter", METHODS))
    (single,) = found["unit"]["ross"]
    assert len(single) == 18 and all(np.isfinite(value) and value != 0 for value in single.values())
    system = systems.system("eddy16")
    others = rows._without(root, TINY, system)
    (same,) = ross.similarities(rows.open_data(root, TINY.truths, system), None, others, others)
    assert set(same.values()) == {0.0}


def test_a_finished_row_is_not_made_again(root, capsys):
    method = rows.load_method("none", METHODS)
    file = rows.row(root, TINY, "eddy16", method, 0)
    before = file.stat().st_mtime
    assert rows.row(root, TINY, "eddy16", method, 0) == file and file.stat().st_mtime == before


def test_a_row_waits_for_the_runs_without_closure_that_another_process_makes(root, monkeypatch, capsys):
    made, busy = rows.row, iter([True, True, False])

    def row(root, config, name, method, *rest):
        if method.name == "none" and next(busy):
            raise FolderInUse(root / "none", {})
        return made(root, config, name, method, *rest)

    monkeypatch.setattr(rows, "row", row)
    monkeypatch.setattr(rows.time, "sleep", lambda seconds: None)
    folders = rows._without(root, TINY, systems.system("eddy16"))
    assert folders and all(folder.is_dir() for folder in folders)
    assert capsys.readouterr().out.count("waiting: ") == 2


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('no data')", "no data"),
        ("return hg.NetworkClosure(lambda x: x[:1], ('q',), ('q',))", "expected"),
        ("return hg.NetworkClosure(lambda x: x, ('tau',), ('q',))", "tau"),
    ],
)
def test_a_users_closure_that_fails_makes_a_row_with_the_reason(root, tmp_path, body, reason):
    file = tmp_path / f"mine_{abs(hash(body))}.py"
    file.write_text(f"import hybridgcm as hg\n\n\ndef closure(problem, seed, folder):\n    {body}\n")
    found = written(root, rows.load_method(str(file), METHODS))
    assert reason in found["failed"]


def test_a_users_closure_that_blows_up_is_scored_as_not_finished(root, tmp_path):
    file = tmp_path / "explosive.py"
    file.write_text("import hybridgcm as hg\n\n\ndef closure(problem, seed, folder):\n    return hg.Leith(1e4)\n")
    found = written(root, rows.load_method(str(file), METHODS))
    unit = found["unit"]
    assert (unit["finished"], unit["runs"]) == (0, 1) and "errors" not in unit


def test_files_that_are_no_method_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no method 'magic'; there are .*backscatter"):
        rows.load_method("magic", METHODS)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="needs a function closure"):
        rows.load_method(str(tmp_path / "empty.py"), METHODS)
