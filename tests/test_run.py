"""A wrong configuration is refused before anything is computed; a run folder has one owner and builds stages once."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from experiments._config import configure, to_toml  # noqa: E402 - the experiments are no installed package
from experiments._run import Run  # noqa: E402
from hybridgcm.files import FolderInUse  # noqa: E402


@dataclass(frozen=True)
class Truth:
    """High-resolution simulation."""

    points: int = 64
    """points per side"""
    years: float = 1.0
    """length, years of 360 days"""
    levels: tuple[float, ...] = (1.0, 2.0)
    """levels, m"""


@dataclass(frozen=True)
class Config:
    """Train a closure."""

    truth: Truth = Truth()
    seed: int = 0
    """random seed"""
    operator: Literal["one", "two"] = "one"
    """coarse-graining"""
    stop: float | None = None
    """stop early, s"""
    plot: bool = True
    """draw"""
    size: tuple[int, int] = (3, 4)
    """network"""

    def problems(self):
        found = [] if self.truth.years > 0 else [f"truth.years = {self.truth.years}, expected more than 0"]
        return found + ([] if self.seed >= 0 else [f"seed = {self.seed}, expected 0 or more"])


PRESETS = {"laptop": Config(), "smoke": Config(truth=Truth(points=16), stop=5.0)}


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        configure(PRESETS, argv)
    assert stop.value.code == 2, f"exit code {stop.value.code}"
    return " ".join(capsys.readouterr().err.split())


def test_defaults_preset_file_and_flags_in_this_order(tmp_path):
    assert configure(PRESETS, []) == (Config(), Path("runs/laptop"))
    file = tmp_path / "run.toml"
    file.write_text('seed = 3\nstop = "none"\noperator = "two"\n[truth]\nyears = 2\nlevels = [1, 2.5, 3]\n')
    config, out = configure(PRESETS, ["--preset", "smoke", "--config", str(file), "--seed", "4", "--out", "here"])
    expected = Config(Truth(16, 2.0, (1.0, 2.5, 3.0)), seed=4, operator="two", stop=None)
    assert (config, out) == (expected, Path("here")), config
    assert type(config.truth.years) is float, "a whole number is a number"
    nested, _ = configure(PRESETS, ["--truth.years", "7", "--no-plot", "--truth.levels", "4", "--size", "1", "2"])
    assert nested == Config(Truth(years=7.0, levels=(4.0,)), plot=False, size=(1, 2))


@pytest.mark.parametrize("config", [Config(), Config(Truth(2, 1e-30, ()), 5, "two", 3.5, False, (7, 8))])
def test_the_resolved_configuration_reads_back_to_the_same(tmp_path, config):
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert configure(PRESETS, ["--preset", "smoke", "--config", str(tmp_path / "c.toml")])[0] == config


@pytest.mark.parametrize("key", ["sed", "truht", "operatr", "stp"])
def test_a_typo_in_a_file_names_the_nearest_key_and_the_file(tmp_path, capsys, key):
    (tmp_path / "run.toml").write_text(f"{key} = 1\n")
    near = {"sed": "seed", "truht": "truth", "operatr": "operator", "stp": "stop"}[key]
    message = refused(capsys, "--config", str(tmp_path / "run.toml"))
    assert f"run.toml: {key} is not a setting; did you mean '{near}'?" in message, message


def test_all_problems_are_listed_at_once(tmp_path, capsys):
    file = tmp_path / "run.toml"
    top = 'seed = 1.5\noperator = "three"\nplot = 1\nsize = [1]\nstop = "x"\n'
    file.write_text(top + '[truth]\nyear = 1\npoints = "a"\nlevels = ["b"]\n')
    message = refused(capsys, "--preset", "smok", "--config", str(file), "--truth.years", "abc")
    for expected in [
        "--truth.years: could not convert string to float: 'abc'",
        "--preset smok: expected one of laptop, smoke; did you mean 'smoke'?",
        "run.toml: seed = 1.5, expected a whole number",
        'run.toml: operator = \'three\', expected one of "one", "two"',
        "run.toml: plot = 1, expected true or false",
        "run.toml: size = [1], expected a list: a whole number, a whole number",
        "run.toml: stop = 'x', expected a number or \"none\"",
        "run.toml: truth.year is not a setting; did you mean 'years'?",
        "run.toml: truth.points = 'a', expected a whole number",
        "run.toml: truth.levels = ['b'], expected a list: a number, ...",
    ]:
        assert expected in message, f"{expected!r} is not in {message!r}"


def test_flags_files_and_combinations_are_refused(tmp_path, capsys):
    assert "--truth.years" in refused(capsys, "--truht.years", "3")
    assert "('one', 'two')" in refused(capsys, "--operator", "three")
    message = refused(capsys, "--truth.years", "-1", "--seed", "-2")
    assert "truth.years = -1.0, expected" in message and "seed = -2, expected" in message
    assert "No such file" in refused(capsys, "--config", str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("seed = = 1")
    assert "not valid TOML" in refused(capsys, "--config", str(tmp_path / "bad.toml"))
    (tmp_path / "bad.toml").write_text("truth = 1")
    assert "truth = 1, expected a table [truth]" in refused(capsys, "--config", str(tmp_path / "bad.toml"))


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from experiments._config import configure
from dataclasses import dataclass
@dataclass(frozen=True)
class Config:
    seed: int = 0
try:
    configure({{"laptop": Config()}}, sys.argv[1:])
finally:
    print("jax" in sys.modules)
"""


@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--sede=1", 2)])
def test_help_and_refusals_are_fast_and_without_jax(flag, code):
    script = SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests"))
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script, flag], capture_output=True, text=True)
    seconds = time.monotonic() - start
    assert done.returncode == code and done.stdout.splitlines()[-1] == "False", done
    assert seconds < 2.0, f"{flag} took {seconds:.1f} s"
    if flag == "--help":
        assert all(word in done.stdout for word in ("--preset", "--config", "--out", "--seed"))


def test_a_run_writes_what_it_is_and_logs_lines(tmp_path):
    with Run(tmp_path / "r", Config()) as run:
        run.log(step=1, loss=0.5, nested={"a": [1.0, float("nan")]})
    with open(tmp_path / "r" / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    with Run(tmp_path / "r", Config()) as run:
        run.log(step=2, loss=float("inf"))
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5, "nested": {"a": [1.0, "nan"]}}, {"step": 2, "loss": "inf"}]
    assert tomllib.loads((tmp_path / "r" / "config.toml").read_text())["truth"]["points"] == 64
    starts = json.loads((tmp_path / "r" / "env.json").read_text())["starts"]
    assert len(starts) == 2 and {"jax", "git", "dirty", "device", "code", "python"} <= set(starts[0])


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    with Run(tmp_path / "r", Config()):
        pass
    before = (tmp_path / "r" / "config.toml").read_bytes()
    with pytest.raises(ValueError, match=r"seed: 0 -> 1\n  truth.years: 1.0 -> 2.0\nChoose another"):
        Run(tmp_path / "r", Config(Truth(years=2.0), seed=1))
    assert (tmp_path / "r" / "config.toml").read_bytes() == before
    with Run(tmp_path / "r", Config()):
        pass


def test_more_seeds_are_no_other_configuration(tmp_path):
    @dataclass(frozen=True)
    class Many(Config):
        """Of which one may ask for more."""

        selection: ClassVar = ("seed",)

    with Run(tmp_path / "r", Many(seed=1)) as run:
        assert "seed" not in run.settings and run.settings["size"] == (3, 4)
    with Run(tmp_path / "r", Many(seed=2)):
        pass
    assert tomllib.loads((tmp_path / "r" / "config.toml").read_text())["seed"] == 2
    with pytest.raises(ValueError, match="plot: True -> False"):
        Run(tmp_path / "r", Many(seed=3, plot=False))
    assert tomllib.loads((tmp_path / "r" / "config.toml").read_text())["seed"] == 2


RACE = """
import sys
sys.path[:0] = [{root!r}]
from dataclasses import dataclass
from experiments._run import Run
import hybridgcm
@dataclass(frozen=True)
class Config:
    seed: int = 0
print("ready", flush=True)
sys.stdin.readline()
try:
    with Run(sys.argv[1], Config()):
        print("won", flush=True)
        sys.stdin.readline()
except Exception as error:
    print("lost", type(error).__name__, error, flush=True)
"""


def test_of_five_starters_exactly_one_wins(tmp_path):
    command = [sys.executable, "-c", RACE.format(root=str(ROOT)), str(tmp_path / "r")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    starters = [subprocess.Popen(command, **pipes) for _ in range(5)]
    try:
        for process in starters:
            assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        for process in starters:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.readline() for process in starters]
        seconds = time.monotonic() - start
        winners = [p for p, line in zip(starters, said, strict=True) if line == "won\n"]
        assert len(winners) == 1, said
        losers = [line for line in said if line != "won\n"]
        assert all(f"FolderInUse {tmp_path / 'r'} is in use by process {winners[0].pid} on" in s for s in losers), said
        assert seconds < 5.0, f"refusals took {seconds:.1f} s"
    finally:
        for process in starters:
            process.kill()
            process.communicate()


class Builder:
    """A stage that counts how often it is built, and may fail half-way."""

    def __init__(self, text="x", fail=False):
        self.text, self.fail, self.calls, self.found = text, fail, 0, None

    def __call__(self, folder):
        self.calls += 1
        self.found = sorted(file.name for file in folder.iterdir() if file.name != "lock")
        (folder / "half").write_text("half")
        if self.fail:
            raise KeyboardInterrupt
        (folder / "result").write_text(self.text)


def test_stages_are_built_once_per_content(tmp_path):
    truth, train, again = Builder("truth"), Builder("net"), Builder("truth")
    with Run(tmp_path / "r", Config()) as run:
        first = run.stage("truth", {"config": Truth(), "levels": (1.0, 2.0)}, truth)
        second = run.stage("train", {"truth": first, "lr": 0.1}, train)
        assert run.stage("truth", {"config": Truth(), "levels": (1.0, 2.0)}, again) == first and again.calls == 0
        assert run.stage("train", {"truth": first, "lr": 0.2}, again) != second and again.calls == 1
        assert run.stage("truth", {"config": Truth(points=8), "levels": (1.0, 2.0)}, again) != first
    assert (first / "result").read_text() == "truth" and first.parent == tmp_path / "r" / "stages"
    shutil.move(tmp_path / "r", tmp_path / "moved")
    with Run(tmp_path / "moved", Config()) as run:
        moved = run.stage("truth", {"config": Truth(), "levels": (1.0, 2.0)}, truth)
        run.stage("train", {"truth": moved, "lr": 0.1}, train)
    assert (truth.calls, train.calls) == (1, 1), "a moved folder lost its stages"


def test_changed_code_or_changed_input_builds_anew(tmp_path, monkeypatch):
    truth, train = Builder("truth"), Builder("net")
    with Run(tmp_path / "r", Config()) as run:
        script = tmp_path / "script.py"
        script.write_text("a")
        first = run.stage("truth", {"script": script}, truth)
        script.write_text("b")
        assert run.stage("truth", {"script": script}, truth) != first and truth.calls == 2
        run.stage("train", {"truth": first}, train)
        monkeypatch.setattr("hybridgcm.fingerprint.code_version", lambda: "other")
        run.stage("train", {"truth": first}, train)
        assert train.calls == 2
        with pytest.raises(ValueError, match="neither a file nor the folder of a finished stage"):
            run.stage("train", {"truth": tmp_path / "nowhere"}, train)
        with pytest.raises(ValueError, match="input f is a function"):
            run.stage("train", {"f": lambda: 0}, train)


def test_an_interrupted_stage_gets_its_folder_again(tmp_path):
    broken, sound = Builder(fail=True), Builder()
    with Run(tmp_path / "r", Config()) as run:
        with pytest.raises(KeyboardInterrupt):
            run.stage("truth", {}, broken)
        folder = run.stage("truth", {}, sound)
    assert sound.found == ["half"] and (folder / "manifest.json").exists()


def test_a_stage_that_fails_tells_at_once(tmp_path, capsys):
    """Stages beside it may run for an hour before the error itself is seen."""

    def fails(folder):
        raise ValueError("no such forcing\nand more")

    with Run(tmp_path / "r", Config()) as run, pytest.raises(ValueError, match="no such forcing"):
        run.stage("free", {}, fails)
    assert "[free] ended by ValueError: no such forcing after" in capsys.readouterr().out


def test_a_damaged_stage_is_put_aside_and_built_anew(tmp_path):
    builder = Builder()
    with Run(tmp_path / "r", Config()) as run:
        folder = run.stage("truth", {}, builder)
        (folder / "result").write_text("other")
        with pytest.warns(UserWarning, match="stage truth: result changed since; moved to"):
            assert run.stage("truth", {}, builder) == folder
        assert builder.calls == 2 and builder.found == [] and (folder / "result").read_text() == "x"
    (aside,) = (f for f in (tmp_path / "r" / "stages").iterdir() if "damaged" in f.name)
    assert (aside / "result").read_text() == "other"


def test_a_run_that_is_in_use_names_this_process(tmp_path):
    with Run(tmp_path / "r", Config()), pytest.raises(FolderInUse, match=f"process {os.getpid()} on"):
        Run(tmp_path / "r", Config())
    assert dataclasses.asdict(Config())["seed"] == 0
