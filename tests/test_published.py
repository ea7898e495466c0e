"""Closures of others from their files: what is read is what their network does, layer by layer, and nothing is run."""

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double

import hybridgcm as hg
from experiments.closure import stages
from experiments.closure.config import LAPTOP
from experiments.closure_benchmark.published_network import EPSILON, _state, _unpickled, ross_fcnn
from hybridgcm import checkpoint, coarsen
from hybridgcm.blueprint import blueprint

CHANNELS = (2, 5, 4, 3, 3, 3, 3, 3, 1)
KERNELS = (5, 5, 3, 3, 3, 3, 3, 3)


class Scaler:
    """Pickled under the name of theirs."""

    def __init__(self, mu, sd):
        self.mu, self.sd = mu, sd


Scaler.__module__, Scaler.__qualname__ = "pyqg_parameterization_benchmarks.neural_networks", "ChannelwiseScaler"


def _rebuild_tensor_v2(*parts):
    raise AssertionError("nothing of a file is run")


_rebuild_tensor_v2.__module__ = "torch._utils"


class FloatStorage:
    """Stands for PyTorch's."""


FloatStorage.__module__ = "torch"


class Tensor:
    """Pickled as PyTorch pickles an array."""

    def __init__(self, name, array):
        self.name, self.array = name, array

    def __reduce__(self):
        strides = tuple(step // 4 for step in self.array.strides)
        return _rebuild_tensor_v2, (self, 0, self.array.shape, strides, False, OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, part):
        if isinstance(part, Tensor) and part.name in self.seen:
            return "storage", FloatStorage, part.name, "cpu", part.array.size
        if isinstance(part, Tensor):
            self.seen.add(part.name)
        return None


@pytest.fixture
def modules(monkeypatch):
    """Empty modules of the names that the files of others have in them."""
    theirs = {
        "torch": {"FloatStorage": FloatStorage},
        "torch._utils": {"_rebuild_tensor_v2": _rebuild_tensor_v2},
        "pyqg_parameterization_benchmarks": {},
        "pyqg_parameterization_benchmarks.neural_networks": {"ChannelwiseScaler": Scaler},
    }
    for name, parts in theirs.items():
        module = types.ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)


def random_state(seed) -> dict:
    """A state_dict with the names and shapes of theirs."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    state = OrderedDict()
    for number, kernel in enumerate(KERNELS):
        wide, out = CHANNELS[number : number + 2]
        state[f"{3 * number}.weight"] = normal(out, wide, kernel, kernel) / np.float32(kernel * wide**0.5)
        state[f"{3 * number}.bias"] = normal(out)
        if number < 7:
            layer = f"{3 * number + 2}"
            state |= {f"{layer}.weight": normal(out), f"{layer}.bias": normal(out)}
            state |= {f"{layer}.running_mean": normal(out), f"{layer}.running_var": normal(out) ** 2}
    return state


def write(folder, states, scaler):
    """models/0, models/1 ... as their FullyCNN.save leaves them."""
    for layer, state in enumerate(states):
        part = folder / "models" / str(layer)
        part.mkdir(parents=True)
        tensors = OrderedDict((name, Tensor(str(number), a)) for number, (name, a) in enumerate(state.items()))
        with zipfile.ZipFile(part / "weights.pt", "w") as file:
            with file.open("archive/data.pkl", "w") as stream:
                pickler = Pickler(stream, 2)
                pickler.seen = set()
                pickler.dump(tensors)
            for tensor in tensors.values():
                file.writestr(f"archive/data/{tensor.name}", tensor.array.tobytes())
        things = {
            "inputs": [("q", 0), ("q", 1)],
            "targets": [("q_forcing_total", layer)],
            "input_scale": scaler,
            "output_scale": Scaler(0, np.full((1, 1, 1, 1), 1e-11 / 10**layer, np.float32)),
        }
        for name, thing in things.items():
            (part / f"{name}.pkl").write_bytes(pickle.dumps(thing))
        (part / "padding").write_text("circular")
    return folder


def convolved(x, weight, wrap: bool):
    """Cross-correlation, tap by tap."""
    k = weight.shape[-1]
    x = np.pad(x, ((0, 0), (k // 2,) * 2, (k // 2,) * 2), mode="wrap" if wrap else "constant")
    ny, nx = x.shape[1] - k + 1, x.shape[2] - k + 1
    taps = [(a, b) for a in range(k) for b in range(k)]
    return sum(np.einsum("oc,cyx->oyx", weight[:, :, a, b], x[:, a : a + ny, b : b + nx]) for a, b in taps)


def theirs(state, x):
    """Their network in use, in double precision, nothing folded: convolution, relu, normalisation; no mean at last."""
    each = lambda name: np.asarray(state[name], float)[:, None, None]
    for first in range(0, 21, 3):
        x = convolved(x, np.asarray(state[f"{first}.weight"], float), True) + each(f"{first}.bias")
        normal = lambda name, first=first: each(f"{first + 2}.{name}")
        x = (np.maximum(x, 0) - normal("running_mean")) / np.sqrt(normal("running_var") + EPSILON)
        x = x * normal("weight") + normal("bias")
    y = convolved(x, np.asarray(state["21.weight"], float), False) + each("21.bias")
    return y - y.mean()


def forcing(closure, q):
    return np.asarray(closure({"q": jnp.asarray(q)}, double(q.shape[-1]), None, None)[0]["q"])


def test_a_published_fcnn_does_what_its_layers_say_one_by_one(modules, tmp_path):
    scaler = Scaler(*(np.array(a, np.float32).reshape(1, 2, 1, 1) for a in ([5e-7, -2e-8], [8e-6, 1e-6])))
    states = [random_state(0), random_state(1)]
    closure = ross_fcnn(write(tmp_path, states, scaler))
    q = 1e-6 * np.random.default_rng(2).normal(size=(2, 12, 12))
    x = (q - scaler.mu[0]) / scaler.sd[0]
    for layer, state in enumerate(states):
        expected = 1e-11 / 10**layer * theirs(state, x)
        got = forcing(closure, q)[layer]
        assert np.abs(got - expected[0]).max() < 1e-6 * np.abs(expected).max()
    hg.save(tmp_path / "c.ckpt", closure)
    again = hg.load(tmp_path / "c.ckpt", blueprint(checkpoint.read_header(tmp_path / "c.ckpt")["tree"]))
    np.testing.assert_array_equal(forcing(again, q), forcing(closure, q))


@pytest.mark.parametrize(
    ("name", "thing", "said"),
    [
        ("targets", [("q_subgrid_forcing", 0)], "q_forcing_total"),
        ("inputs", [("q", 0)], "all layers"),
        ("inputs", [("psi", 0), ("psi", 1)], "of q, u or v"),
        ("output_scale", Scaler(1.0, np.ones((1, 1, 1, 1))), "about zero"),
        ("inputs", os.getcwd, "getcwd, which is not read"),
    ],
)
def test_other_files_are_refused(name, thing, said, modules, tmp_path):
    scaler = Scaler(np.zeros((1, 2, 1, 1)), np.ones((1, 2, 1, 1)))
    folder = write(tmp_path, [random_state(0), random_state(1)], scaler)
    (folder / "models/0" / f"{name}.pkl").write_bytes(pickle.dumps(thing))
    with pytest.raises(ValueError, match=said):
        ross_fcnn(folder)
    with pytest.raises(FileNotFoundError, match="pyqg_parameterization_benchmarks"):
        ross_fcnn(tmp_path / "elsewhere")


there = pytest.mark.skipif("ROSS_FCNN" not in os.environ, reason="ROSS_FCNN names no folder with the published network")


@there
def test_the_published_network_has_the_published_size_and_does_what_its_layers_say():
    closure = ross_fcnn(os.environ["ROSS_FCNN"])
    folder = Path(os.environ["ROSS_FCNN"]) / "models/1"
    state, scale = _state(folder / "weights.pt"), _unpickled(folder / "input_scale.pkl")
    assert sum(a.size for name, a in state.items() if "running" not in name and "tracked" not in name) == 267_841
    q = np.random.default_rng(0).normal(size=(2, 24, 24)) * np.array([8e-6, 1e-6])[:, None, None]
    expected = theirs(state, (q - scale.mu[0]) / scale.sd[0])[0]
    got = forcing(closure, q)[1]
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 1 - 1e-9


@pytest.mark.slow
@there
def test_the_published_network_explains_our_truth_as_it_does_theirs():
    """Correlation .94 and .97, R² .87 and .95 of the layers: Ross et al.'s notebook. All of it: truth, operator, sign.

    Theirs are of 87 snapshots of 250 runs, ours of one run's third year.
    """
    fine, coarse = stages.model(LAPTOP, LAPTOP.fine), stages.model(LAPTOP, LAPTOP.coarse)
    years = eqx.filter_jit(lambda state: hg.rollout(fine, state, 2160, every=2160, save=None)[0])
    state, frames = fine.encode(stages.first_state(LAPTOP, 5)), []
    for quarter in range(24):
        state = years(state)
        if quarter >= 8:
            frames.append(jax.tree.map(np.asarray, coarsen.sample(fine, coarse, state.y, coarsen.operator1)))
    closure, grid = ross_fcnn(os.environ["ROSS_FCNN"]), coarse.equation.grid
    made = np.stack([np.asarray(closure({"q": frame["q"]}, grid, None, None)[0]["q"]) for frame in frames])
    truth = np.stack([frame["S"] for frame in frames])
    for layer, (correlation, explained) in enumerate([(0.94, 0.87), (0.97, 0.95)]):
        ours, right = made[:, layer].ravel().astype(float), truth[:, layer].ravel().astype(float)
        found = np.corrcoef(ours, right)[0, 1], 1 - np.mean((ours - right) ** 2) / right.var()
        print(f"layer {layer}: correlation {found[0]:.3f}, R² {found[1]:.3f}")
        assert abs(found[0] - correlation) < 0.015
        assert abs(found[1] - explained) < 0.025
