"""Figures show the numbers they are given, with units, and say what is missing."""

import subprocess
import sys

import numpy as np
import pytest

from hybridgcm import draw, plot

pytest.importorskip("matplotlib")

K = 6.28e-6 * (np.arange(16) + 0.5)
RNG = np.random.default_rng(0)
Q = 1e-5 * RNG.standard_normal((16, 16))


def texts(figure):
    """All visible text of a figure."""
    import matplotlib.text

    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


@pytest.mark.parametrize(
    "units, power, expected",
    [("m2 s-1", 0, "m² s⁻¹"), ("s-1", -5, "10⁻⁵ s⁻¹"), ("m3 s-3", 12, "10¹² m³ s⁻³"), ("m", 0, "m")],
)
def test_units_are_written_with_raised_exponents(units, power, expected):
    assert draw.unit(units, power) == expected


def test_labels_carry_the_units_of_the_table():
    assert draw.label("q", -5) == "q (10⁻⁵ s⁻¹)"
    assert draw.label("something else") == "something else"


def test_a_tuned_closure_has_the_colour_of_its_family_and_a_dashed_line():
    kinds = {"Truth": ("truth", "Truth"), "A": ("classical", "A"), "A (tuned)": ("tuned", "A"), "B": ("classical", "B")}
    styles = plot.line_styles(kinds)
    assert styles["A"]["color"] == styles["A (tuned)"]["color"] != styles["B"]["color"]
    assert "linestyle" in styles["A (tuned)"] and "linestyle" not in styles["A"]
    assert styles["Truth"]["color"] == "black"


def test_an_unknown_kind_names_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'tuned'"):
        plot.line_styles({"A": ("tunned", "A")})


def test_maps_share_one_symmetric_scale_and_print_why_one_is_missing():
    panels = {"truth": Q, "strong": 3 * Q, "bad": Q * np.nan, "gone": "blew up\nat step 7"}
    figure = plot.fields(panels, length=1e6, columns=2)
    images = [image for ax in figure.axes[:4] for image in ax.images]
    assert len(images) == 2, f"{len(images)} images for two fields with finite values"
    limits = {image.get_clim() for image in images}
    bound = draw.bound([Q]) * 1e5
    assert len(limits) == 1 and np.allclose(limits.pop(), (-bound, bound)), f"{limits}, expected ±{bound}"
    assert np.allclose(images[1].get_array(), 3e5 * Q)
    assert {"not finite", "blew up\nat step 7", "q (10⁻⁵ s⁻¹)", "x (km)"} <= set(texts(figure))


def test_the_colour_scale_is_that_of_the_first_finite_field():
    assert draw.bound(["text", Q * np.nan, Q, 5 * Q], percent=100.0) == pytest.approx(np.abs(Q).max())
    assert draw.bound([np.zeros((4, 4))]) > 0


def test_spectra_show_the_data_the_ratio_and_the_wavelength():
    lines = {"Truth": K**-3.0, "half": 0.5 * K**-3.0, "nan": K * np.nan}
    figure = plot.spectra(K, {"KE": lines}, reference="Truth")
    top, ratio = figure.axes[:2]
    drawn = {line.get_label(): line for line in top.lines}
    assert set(drawn) == {"Truth", "half"}, f"drawn: {set(drawn)}"
    assert np.array_equal(drawn["half"].get_xydata(), np.stack([K, lines["half"]], 1))
    below = next(line for line in ratio.lines if line.get_label() == "half").get_ydata()
    shown = np.isfinite(below)
    assert np.allclose(below[shown], 0.5) and shown.sum() == (lines["Truth"] > 1e-4 * lines["Truth"].max()).sum()
    assert any("km" in text for text in texts(figure)) and "wavenumber (rad m⁻¹)" in texts(figure)


def test_a_mean_at_wavenumber_zero_is_left_out_of_a_log_axis():
    k = 1e-5 * np.arange(8)
    line = plot.spectra(k, {"KE": {"a": np.ones(8)}}).axes[0].lines[0]
    assert len(line.get_xdata()) == 7


def test_budget_panels_share_a_scale_and_the_printed_power_restores_the_values():
    terms = {"flux": {"a": 3e-7 * np.sin(np.arange(16))}, "drag": {"a": -1e-8 * np.ones(16)}}
    figure = plot.budget(K, terms)
    flux, drag = figure.axes[:2]
    assert flux.get_ylim() == drag.get_ylim()
    assert flux.get_ylabel() == "10⁻⁷ m³ s⁻³"
    values = next(line for line in flux.lines if line.get_label() == "a").get_ydata()
    assert np.allclose(1e-7 * values, terms["flux"]["a"], atol=1e-20)


def test_densities_integrate_to_one_in_the_units_of_the_axis():
    density, edges = np.histogram(Q, 21, density=True)
    figure = plot.pdfs({("upper", "q"): {"a": (edges, density)}}, reference="a")
    x, y = figure.axes[0].lines[0].get_data()
    total = np.nansum(y) * (x[1] - x[0])
    assert total == pytest.approx(1, abs=1e-6), f"integral {total}"
    assert figure.axes[0].get_xlabel() == "q (10⁻⁵ s⁻¹)"


def test_a_series_that_ends_without_a_finite_value_ends_in_a_cross():
    time = np.arange(10.0)
    ended = np.where(time < 6, 1.0, np.nan)
    figure = plot.series({"": {"good": (time, time), "ended": (time, ended)}})
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses) == 1 and crosses[0].get_xydata().tolist() == [[5.0, 1.0]]


def test_the_running_mean_keeps_straight_lines_inside_and_shows_raw_data_on_demand():
    time = np.linspace(0, 1, 101)
    figure = plot.series({"": {"a": (time, 2 * time)}}, smooth=0.1, raw=("a",))
    raw, smooth = figure.axes[0].lines[:2]
    assert np.array_equal(raw.get_ydata(), 2 * time)
    gap = np.abs(smooth.get_ydata() - 2 * time)[6:-6].max()
    assert gap < 1e-12, f"running mean off by {gap}"


def test_every_frame_of_an_animation_shows_its_own_data(tmp_path):
    frames = np.stack([Q, 2 * Q, -Q])
    movie = plot.animation({"a": frames, "b": frames}, time=[0, 1, 2])
    movie.save(tmp_path / "x.gif", writer="pillow", dpi=40)
    from PIL import Image

    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.n_frames == 3


def test_a_single_panel_needs_no_legend_and_no_data_makes_no_error():
    assert not plot.series({"": {"a": ([0, 1], [1, 2])}}).legends
    for figure in (plot.fields({"a": "nothing"}), plot.budget(K, {"t": {}}), plot.spectra(K, {"t": {}})):
        figure.canvas.draw()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"hybridgcm\[plot\]"):
        plot.fields({"a": Q})


def test_figures_leave_pyplot_alone():
    code = "import sys, numpy as np; from hybridgcm import plot; a = 'matplotlib' in sys.modules; "
    code += "plot.fields({'a': np.eye(4)}).canvas.draw(); "
    code += "import matplotlib.pyplot as plt; print(a, plt.get_fignums(), plt.rcParams['font.size'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "[]", "10.0"], f"matplotlib imported early, figures, font size: {out}"


def test_jupyter_shows_a_figure_without_pyplot():
    png = plot.fields({"q": np.eye(4)}, "q")._repr_png_()
    assert png.startswith(b"\x89PNG")
