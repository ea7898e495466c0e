"""The standard cases of the sphere run end to end, and their report says what was found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "experiments/standard_cases/run.py"]


def call(*words):
    """The finished process of the experiment with those flags."""
    return subprocess.run([*PROGRAM, *map(str, words)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished smoke run."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("cases") / "run"
    done = call("--preset", "smoke", "--out", out)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.slow
def test_norms_are_those_of_exact_and_of_finer_answers(folder):
    records = json.loads((folder / "report.json").read_text())
    found = {(r["case"], r["truncation"], r["precision"]): r for r in records}
    assert len(found) == len(records) == 5 * 2 * 2
    l2 = lambda case, T, precision, day: found[case, T, precision]["days"][str(day)]["l2"]
    assert l2("williamson2", 31, "float64", 5) < 1e-14 and 1e-9 < l2("williamson2", 31, "float32", 5) < 5e-7
    assert l2("rossby_haurwitz", 31, "float64", 14) < l2("rossby_haurwitz", 21, "float64", 14) < 1e-8
    assert 1e-4 < l2("williamson5", 21, "float64", 15) < 3e-3
    reference = found["williamson5", 31, "float64"]
    assert reference["against"] == "T31 float64" and reference["days"]["15"] is None
    assert l2("williamson5", 31, "float32", 15) < 2e-6  # rounding alone
    assert reference["mass"] < 1e-15 and 3500 < reference["depth"][0] < reference["depth"][1] < 6100
    wave = found["williamson6", 31, "float64"]
    assert 11 < wave["speed"] < 12.2 and abs(wave["amplitude"] - 1) < 0.1 and wave["shape"] < 0.02


@pytest.mark.slow
def test_a_year_of_turbulence_closes_its_budget_and_has_jets(folder):
    (year,) = json.loads((folder / "turbulence.json").read_text())
    assert year["truncation"] == 31 and year["days"] == 360 and year["residual"] < 1e-3, year
    assert abs(year["stirring"] - 1) < 4 * year["stirring_error"] < 0.2, year
    # energy of the second half against what stirring and hyperdiffusion leave for drag; it still varies in time
    assert abs(year["energy"] / year["balance"] - 1) < 0.12 and 0 < year["spent"]["hyperdiffusion"] < 0.6, year
    assert year["zonal"] > 0.13 and year["jets"] >= 2 and 0.5 < year["degree"] / year["rhines"] < 1.5, year


@pytest.mark.slow
def test_the_report_has_its_tables_and_figures(folder):
    text = (folder / "report.md").read_text()
    for words in (
        "| Williamson 2, angle 0 | height | T21 | float64 | 5 | exact |",
        "largest relative change of mass",
        "T31 | float32 |",
    ):
        assert words in text, words
    for name in ("errors", "convergence", "williamson5", "williamson6", "galewsky", "turbulence"):
        assert f"({name}.png)" in text
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG", name


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(folder):
    done = call("--preset", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("done before") == 21 and "starts" not in done.stdout


def test_a_small_run_reports(tmp_path):
    pytest.importorskip("matplotlib")
    done = call(
        "--truncations", 10, 15, "--precisions", "float64", "--cases", "williamson2", "gravity_wave", "--dt", 1800,
        "--turbulence", 21, "--days", 60, "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = {(r["case"], r["truncation"]): r for r in json.loads((tmp_path / "run" / "report.json").read_text())}
    assert len(found) == 4 and found["williamson2", 15]["days"]["5"]["l2"] < 1e-13
    assert "| Williamson 2, angle 0 | height | T10 | float64 | 5 | exact |" in (tmp_path / "run/report.md").read_text()


def test_help_is_shown_and_what_does_not_fit_is_refused_without_jax(tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['run.py', '--help']\ntry: runpy.run_path('{}', run_name='__main__')\nfinally: "
    )
    code = code.format(PROGRAM[1]) + "assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--truncations" in done.stdout, done.stderr[-2000:]
    done = call("--dt", "3600", "--truncations", "5", "42", "--turbulence", "16", "--out", tmp_path / "r")
    assert done.returncode == 2 and "dt=3600 s must" in done.stderr and "at least 10" in done.stderr
    assert "turbulence must be at least 21" in done.stderr
    assert not (tmp_path / "r").exists()
