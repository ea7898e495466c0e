"""Every notebook that makes its own data runs from top to bottom, at a size of seconds; the figures can be drawn."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "01_first_closure.ipynb": dict(
        FINE=32, COARSE=16, SPIN_UP=480, LEARN=240, SCORE=480, JET_SPIN_UP=240, TRAINING=2, HORIZONS=(2,),
        GRADIENTS=(2, 4),
    ),
    "02_write_your_own.ipynb": dict(N=16, STEPS=2000, TRAINING=2),
    "04_sphere.ipynb": dict(JET=21, T=10, DAYS=20, ANALYSES=20, STEPS=5),
    "05_operators.ipynb": dict(
        N=8, PAIRS=32, TESTS=32, EPOCHS=2, HIDDEN=2, LAYERS=1, BEFORE=32, PRETRAIN=4, FINE=2, YEARS=1, ONE=2,
        WINDOWED=2, LEADS=4, FREE=40, STARTS=4, QUERIES=4,
    ),
    "03_closure_benchmark.ipynb": dict(ROWS=Path(__file__).parent / "golden" / "closure_benchmark"),
}  # fmt: skip
"""What the cell tagged `parameters` is followed by here."""


LONG = [n if n.startswith("03") else pytest.param(n, marks=pytest.mark.slow) for n in SMALL]  # a minute or more


@pytest.mark.parametrize("name", LONG)
def test_all_cells_run_in_order(name, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads((NOTEBOOKS / name).read_text())["cells"] if cell["cell_type"] == "code"]
    names, figures = {"__name__": "notebook"}, 0
    for number, cell in enumerate(cells):
        tree, label = ast.parse("".join(cell["source"])), f"{name}, code cell {number}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, label, "exec"), names)
        shown = eval(compile(ast.Expression(last.value), label, "eval"), names) if last else None
        if hasattr(shown, "savefig"):  # what Jupyter would show
            shown.savefig("figure.png")
            figures += 1
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(SMALL[name]) <= set(names), "a parameter has another name in the notebook"
            names |= SMALL[name]
    assert figures >= 4, f"{name} shows {figures} figures"


@pytest.mark.parametrize("name", SMALL)
def test_the_stored_outputs_are_whole_and_small(name):
    file = NOTEBOOKS / name
    code = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert "error" not in kinds and file.stat().st_size < 1e6
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"]) >= 4
