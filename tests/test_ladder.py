"""The crash ladder: what blows up goes on from its last good state under a more careful model, all of it recorded."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hybridgcm as hg
from hybridgcm.data import read_store
from hybridgcm.fingerprint import digest
from hybridgcm.ladder import RUNGS, adapt, climb, closure_off, halve_dt, perturb, stronger_filter
from hybridgcm.resume import resumable_rollout
from hybridgcm.rollout import rollout, stream


class Viscous(hg.AbstractClosure):
    """dq = nu lap q: in an explicit stepper stable below a time step."""

    nu: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"q": self.nu * grid.to_grid(grid.laplacian(grid.to_spectral(fields["q"])))}, memory


class Fuse(hg.AbstractClosure):
    """dq = 0 until the closure has been called `calls` times, then not a number, for good."""

    calls: int = eqx.field(static=True)

    def init(self, fields, grid):
        return jnp.zeros((), jnp.int32)

    def __call__(self, fields, grid, memory, key):
        return {"q": jnp.where(memory >= self.calls, jnp.nan, 0.0 * fields["q"])}, memory + 1


GRID = hg.Torus(16, 1e6)
START = {"q": 1e-6 * jr.normal(jr.key(0), (2, 16, 16), jnp.float32)}


def model(closure=None, stepper=None, U=0.025):
    flow = hg.QuasiGeostrophic.two_layer(GRID, tau=1e5, U=(U, 0.0))
    return hg.Model(flow, stepper or hg.AB3(), closure, dt=3600.0)


def stiff():
    """A viscosity that AB3 (rate·dt below .54) carries at half the time step only."""
    largest = float(jnp.max(-GRID.eigenvalues * GRID.mask))
    return model(Viscous(0.8 / 3600.0 / largest))


def run(flow, steps, events, state=None, **options):
    state = flow.encode(START, jr.key(1)) if state is None else state
    return list(climb(flow, state, steps, events, every=2, chunk=3, **options))


def names(events):
    return [" ".join(event["rungs"]) for event in events]


def test_a_run_without_trouble_is_that_of_stream_to_the_bit(tmp_path):
    flow, events = model(), []
    found = run(flow, 24, events)
    expected = list(stream(flow, flow.encode(START, jr.key(1)), 24, every=2, chunk=3))
    assert not events and len(found) == len(expected)
    for (state, frames), (other, others) in zip(found, expected, strict=True):
        assert digest((state, frames)) == digest((other, others))
    resumable_rollout(flow, flow.encode(START), 6, tmp_path, rungs=RUNGS)
    assert not (tmp_path / "ladder.json").exists()


def test_a_step_that_is_too_long_is_halved_again_and_again_as_long_as_needed():
    flow, events = stiff(), []
    with pytest.raises(hg.BlewUp):
        run(flow, 600, [], rungs=())
    chunks = run(flow, 600, events)
    assert set(names(events)) == {"halve_dt"} and {event["outcome"] for event in events[:-1]} == {"passed"}
    held = [event["chunks"] for event in events]
    assert held[0] == 1 and all(b in (1, 2 * a) for a, b in zip(held, held[1:])), held
    assert max(held) > 1, f"a relapse must be held for longer; got {held}"
    times = np.concatenate([frames["time"] for _, frames in chunks])
    np.testing.assert_array_equal(times, 3600.0 * 2 * np.arange(1, 301))
    assert [int(state.step) for state, _ in chunks] == list(range(6, 601, 6))
    assert np.isfinite(chunks[-1][1]["save"]["q"]).all()


def test_means_are_sampled_at_the_same_times_in_a_detour_of_half_steps():
    flow, events = stiff(), []
    time = lambda model, state: model.dt * state.step
    chunks = run(flow, 600, events, mean=time, sample=2)
    assert events
    for _, frames in chunks:
        np.testing.assert_allclose(frames["mean"], frames["time"], rtol=1e-6)


def test_rungs_add_up_until_one_carries_and_the_chunk_is_what_that_model_gives():
    flow, events = model(Fuse(9)), []
    chunks = run(flow, 18, events)  # the first chunk makes 6 calls, the second meets call 9
    assert names(events) == ["halve_dt", "halve_dt stronger_filter", "halve_dt stronger_filter closure_off"]
    assert [event["step"] for event in events] == [6, 6, 6] and events[0]["seen"] == 10
    assert events[0]["outcome"] == "failed at step 8" and events[2]["outcome"] == "passed"
    state, other = chunks[0][0], flow
    for rung in (halve_dt, stronger_filter, closure_off):
        new, _ = rung(other, state)
        state, other = adapt(state, other, new), new
    assert other.dt == 1800.0 and other.closure is None
    end, out = rollout(other, state, 12, every=4)
    assert digest(chunks[1][0].y) == digest(end.y), "the detour is not the run of the careful model"
    np.testing.assert_array_equal(chunks[1][1]["save"]["q"], out["save"]["q"])
    assert int(chunks[2][0].step) == 18 and int(chunks[2][0].memory) == 6, "the closure returns, as at a start"


def test_after_the_last_rung_it_gives_up_and_says_all_that_was_tried(tmp_path):
    flow = model()
    state = flow.encode(START, jr.key(1))
    good = resumable_rollout(flow, state, 4, tmp_path, every=2)
    with pytest.raises(hg.BlewUp) as caught:
        resumable_rollout(flow, state, 8, tmp_path, every=2, rungs=RUNGS, courant=0.0)
    events = json.loads((tmp_path / "ladder.json").read_text())
    assert [len(event["rungs"]) for event in events] == [1, 2, 3, 4]
    assert {event["outcome"] for event in events} == {"failed at step 6"}
    text = (tmp_path / "ladder.txt").read_text()
    assert "perturb until step 6: failed" in text and "4 interventions" in "".join(caught.value.__notes__)
    assert int(caught.value.state.step) == 4 and digest(caught.value.state.y) == digest(good.y)
    assert read_store(tmp_path / "output.zarr").sizes["time"] == 2, "what was good is kept"
    assert digest(resumable_rollout(flow, state, 8, tmp_path, every=2)) == digest(
        resumable_rollout(flow, state, 8, tmp_path / "b", every=2)
    ), "a run that gave up goes on once the cause is gone"


@pytest.mark.parametrize("stop", [2, 3, 4, 7])
def test_interrupted_in_a_detour_it_goes_on_to_the_same_bits_and_the_same_report(tmp_path, stop):
    flow = model(Fuse(15))
    state = flow.encode(START, jr.key(1))
    call = lambda folder, **more: resumable_rollout(
        flow, state, 48, folder, every=2, chunk=3, rungs=RUNGS, hold=3, **more
    )
    whole = call(tmp_path / "whole")

    def interrupt(state, frames):
        if int(state.step) == 6 * stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(tmp_path / "b", callback=interrupt)
    assert digest(call(tmp_path / "b")) == digest(whole)
    for name in ("ladder.json", "ladder.txt"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    found, expected = (read_store(tmp_path / part / "output.zarr").q for part in ("b", "whole"))
    np.testing.assert_array_equal(found, expected)


def test_a_flow_made_three_times_faster_in_mid_run_stops_within_a_chunk_or_goes_on_at_half_the_step():
    calm, fast = model(U=0.5), model(U=1.5)
    limit = 2 * float(calm.courant(calm.encode(START)))
    state = run(calm, 12, [], courant=limit)[-1][0]
    with pytest.raises(hg.BlewUp) as caught:
        run(fast, 24, [], state, rungs=(), courant=limit)
    assert caught.value.field == "Courant number" and 12 < caught.value.step <= 18
    assert caught.value.value == pytest.approx(1.5 * limit, rel=0.2)
    events = []
    end = run(fast, 24, events, state, courant=limit)[-1][0]
    assert int(end.step) == 36 and set(names(events)) == {"halve_dt"}
    assert all(event["field"] == "Courant number" and event["value"] > limit for event in events)


def test_a_closure_with_a_clock_keeps_its_time_in_a_detour_of_half_steps():
    flow, events = model(hg.closures.GrahamRingler(dt=3600.0), U=1.5), []
    limit = 0.9 * float(flow.courant(flow.encode(START)))
    chunks = run(flow, 24, events, courant=limit)
    assert events and set(names(events)) == {"halve_dt"}
    assert [int(state.memory["calls"]) for state, _ in chunks] == [6, 12, 18, 24]


def test_the_perturbation_is_small_repeatable_and_keeps_means():
    flow = model()
    state = flow.encode(START, jr.key(1))
    _, a = perturb(flow, state)
    _, b = perturb(flow, state)
    assert digest(a) == digest(b) != digest(state)
    old, new = flow.decode(state)["q"], flow.decode(a)["q"]
    change = float(jnp.sqrt(jnp.mean((new - old) ** 2) / jnp.mean(old**2)))
    assert 0.2e-6 < change < 2e-6, f"relative change {change:.2e}"
    np.testing.assert_array_equal(a.y["q"][:, 0, 0], state.y["q"][:, 0, 0])


def test_rungs_that_do_not_fit_the_records_and_other_rungs_in_a_detour_are_refused():
    third = lambda model, state: (dataclasses.replace(model, dt=model.dt / 1.5), state)
    with pytest.raises(ValueError, match="divide dt = 3600 s by a whole number; got 2400 s"):
        run(stiff(), 600, [], rungs=(third,))
    events, flow = [], stiff()
    chunks = climb(flow, flow.encode(START), 600, events, every=2, chunk=3, hold=4)
    state = next(state for state, _ in chunks if events)
    with pytest.raises(ValueError, match=r"a detour by \['halve_dt'\], the rungs now begin with \['perturb'\]"):
        list(climb(stiff(), state, 600, events, every=2, chunk=3, rungs=(perturb,)))
