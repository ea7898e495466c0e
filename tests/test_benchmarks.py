"""The benchmarks count, interleave and tabulate what they say; the notebook about runs works on a run folder."""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hybridgcm as hg
from hybridgcm import data

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from experiments.benchmarks import cases, first_call, run, table  # noqa: E402 - the experiments are no installed package


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The records of one tiny run, and the file that holds them."""
    file = tmp_path_factory.mktemp("benchmarks") / "results.jsonl"
    arguments = "--sizes 16 --precisions float32 --rounds 2 --steps 4 --cases step memory --ensemble 2 --out"
    return run.main([*arguments.split(), str(file)]), file


def test_every_measurement_is_one_line_that_says_where_it_comes_from(measured):
    records, file = measured
    assert [json.loads(line) for line in file.read_text().splitlines()] == records
    for record in records:
        missing = {"date", "device", "threads", "git", "jax", "jaxlib", "pyqg", "pyqg-jax", "load"} - set(record)
        assert not missing, f"{record['case']} lacks {missing}"
    assert {record["case"] for record in records} == {"step", "memory", "ensemble"}


def test_medians_and_extremes_are_those_of_the_rounds(measured):
    for record in measured[0]:
        if "ms" in record:
            assert len(record["ms_rounds"]) == 2
            assert record["ms"] == np.median(record["ms_rounds"]), record
            assert (record["ms_min"], record["ms_max"]) == (min(record["ms_rounds"]), max(record["ms_rounds"]))


def test_a_code_that_is_not_installed_is_reported_as_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyqg", None)  # makes the import fail
    monkeypatch.setitem(sys.modules, "pyqg_jax", None)
    records = list(run.steps(16, ["float32"], 1, 2))
    absent = {record["code"]: record.get("absent") for record in records}
    assert absent["pyqg"] == absent["pyqg-jax"] == "not installed", absent
    assert absent["hybridgcm"] is None
    about = {"date": "today", "device": "cpu", "processor": "", "threads": 1}
    assert "| not installed | – |" in table.markdown([about | record for record in records])


def test_codes_take_turns_and_every_round_begins_with_another_one():
    order = []
    calls = {name: lambda name=name: order.append(name) or np.zeros(1) for name in "abc"}
    times = run.interleave(calls, 3)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab", order
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_speed_of_a_blow_up_is_refused():
    with pytest.raises(ValueError, match="fast is not finite"):
        run.interleave({"fast": lambda: np.array([np.nan])}, 1)


def test_the_table_holds_the_numbers_of_the_last_run_and_marks_what_is_beyond_a_limit(tmp_path):
    about = {
        "date": "new",
        "device": "cpu",
        "processor": "x",
        "threads": 2,
        "load": 0.1,
        "n": 64,
        "precision": "float32",
    }
    step = lambda code, ms: about | {
        "case": "step", "code": code, "ms": ms, "ms_min": ms / 2, "ms_max": 2 * ms, "ms_rounds": [ms, ms], "steps": 9,
    }  # fmt: skip
    names = {"hybridgcm": 0.2, "hybridgcm, no filter": 0.12, "FFT floor, batched": 0.1, "FFT floor, separate": 0.3}
    records = [step(code, ms) for code, ms in (names | {"pyqg-jax": 1.0}).items()]
    records.append(about | {"case": "memory", "steps": 9, "chunk": 3, "megabytes": 100.1})
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in [records[0] | {"date": "old", "ms": 99.0}, *records]))
    text = table.markdown(table.last_run(file))
    assert "| 64² | float32 | 0.2 (0.1 to 0.4) |" in text
    assert "| 2.00* | 1.20 | 1 (0.5 to 2) | 5.00 | not measured | – |" in text, text
    assert "| 3 | 100.10* |" in text and "99" not in text


@pytest.mark.parametrize("batched", [True, False])
def test_the_floor_is_ten_transforms_in_a_loop_and_no_others(batched):
    fields = jnp.asarray(np.fft.rfft2(np.concatenate([cases.start(16)] * 3)))
    function, argument = (cases._batched, fields) if batched else (cases._separate, tuple(fields))
    text = jax.jit(function, static_argnums=1).lower(argument, 3).compile().as_text()
    inside = [line for line in text.splitlines() if " fft(" in line and "while/body" in line]
    assert cases.count_transforms("\n".join(inside)) == cases.count_transforms(text) == 10, inside
    assert len(inside) == (2 if batched else 10)


def test_the_floor_keeps_the_fields_it_transforms():
    once = cases.floor(16, "float64", 1, batched=True)()
    again = cases.floor(16, "float64", 5, batched=False)()
    first = np.fft.rfft2(cases.start(16))
    for a_hat, expected in zip(np.concatenate([once[:4], np.stack(again[0][:4])]), np.tile(first, (4, 1, 1))):
        assert np.allclose(a_hat, expected, atol=1e-12 * np.abs(expected).max())
    assert np.allclose(again[1][0], cases.start(16)[0], atol=1e-18)


@pytest.mark.parametrize(("name", "most"), [("none", 10), ("Leith", 20), ("CNN of q, u, v", 12)])
def test_a_step_has_no_transform_beyond_those_it_needs(name, most):
    closure, least = cases.closures()[name]
    found = cases.transforms(16, "float32", closure)
    assert 10 + 2 * least <= found <= most, f"{name}: {found} transforms"


def test_transforms_are_counted_field_by_field():
    text = "a = f32[3,2,8,8]{3,2,1,0} fft(b), fft_type=IRFFT\n c = c64[8,5]{1,0} fft(d)\n e = f32[8,8]{1,0} add(f)"
    assert cases.count_transforms(text) == 7


def test_memory_of_a_long_gradient_shrinks_with_chunks():
    megabytes = {record["chunk"]: record["megabytes"] for record in run.memory(16, "float32", 100)}
    assert megabytes[10] < megabytes[None] / 2, megabytes


def test_gradients_are_those_of_the_same_loss_in_every_chunk(monkeypatch):
    monkeypatch.setattr(cases, "CHUNKS", (None, 5))
    found = cases.gradients(16, "float64", 10)
    values = {key: (forward(), *backward()) for key, (forward, backward, _) in found.items()}
    for (name, chunk), (loss, same, gradient) in values.items():
        assert loss > 0 and np.isclose(loss, same, rtol=1e-12), (name, chunk)
        reference = values[name, None][2]
        assert np.allclose(gradient, reference, rtol=1e-9, atol=1e-9 * np.abs(reference).max()), (name, chunk)
        assert np.abs(gradient).max() > 0


def test_the_first_call_reports_its_seconds(capsys):
    first_call.main("step", 16, "float64")
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["seconds"] < found["with_imports"], found


def test_all_codes_step_the_same_flow():
    if cases.pyqg_jax(16, "float64", 1) is None:
        pytest.skip("pyqg-jax is not installed")
    ours, other = np.asarray(cases.step(16, "float64", 20)()) * 16**2, np.asarray(cases.pyqg_jax(16, "float64", 20)())
    assert np.abs(ours - other).max() < 1e-13 * np.abs(other).max()
    if third := cases.pyqg(16, 20):
        assert np.abs(ours - third()).max() < 1e-13 * np.abs(ours).max()


def test_the_readme_recipe_names_every_column():
    readme = (ROOT / "experiments/benchmarks/README.md").read_text()
    for word in (
        "no filter",
        "FFTs, batched",
        "FFTs, separate",
        "gradient / forward",
        "least possible",
        "gain over one",
    ):
        assert word in readme and word in Path(table.__file__).read_text(), word


def test_the_notebook_reads_a_run_folder(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    notebook = json.loads((ROOT / "notebooks/00_read_a_run.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "outputs are stored"
    _write_run(tmp_path / "runs/closure/laptop")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names, figures = {}, []
    for cell in code:
        source = "".join(cell["source"])
        head, _, last = source.rpartition("\n")
        if re.match(r"(plot|table)\.", last):  # what Jupyter would show
            exec(head, names)
            figures.append(eval(last, names))
        else:
            exec(source, names)
    assert len(figures) == 4
    assert list(figures[0].index) == ["CNN, online", "No closure"], "sorted by error"
    for figure in figures[1:]:
        figure.savefig(tmp_path / "figure.png")
    assert list(names["climates"]) == ["Truth", "No closure", "CNN, online"]


def _write_run(folder):
    """A run folder as experiments/closure leaves it, of random fields on 16²."""
    config = dict(coarse=16, length=1e6, dt=3600.0, rd=15e3, delta=0.25, beta=1.5e-11, shear=0.025, drag=5.787e-7)
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("".join(f"{name} = {value!r}\n" for name, value in config.items()))
    kinds = {"Truth": "truth", "No closure": "none", "CNN, online": "online"}
    models, low = {name: {"kind": kind} for name, kind in kinds.items()}, cases.model(16, "float32")
    for error, name in zip((0.2, 0.1), ("No closure", "CNN, online")):
        models[name] |= {
            "errors": {"distributional": error, "spectral": error},
            "survived_years": [1, 1],
            "ms_per_step": 0.1,
        }
    (folder / "metrics.json").write_text(json.dumps({"models": models}))
    for number, name in enumerate(models):
        fields = low.view(low.encode({"q": (1 + number) * cases.start(16)}))
        fields = {key: np.stack([fields[key]] * 3) for key in ("q", "u", "v")}
        dataset = data.to_dataset(fields, hg.Torus(16, 1e6, dealias=None), np.arange(3.0), attrs={"model": name})
        data.save_netcdf(dataset, folder / "climates" / f"{number}.nc")
