"""Closures of others, from the files that they published.

Not in the package, which reads no pickles: theirs are, and are read by names that are allowed one by one.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hybridgcm import nn
from hybridgcm.closures import NetworkClosure

FORCING = "q_forcing_total"
"""Their name of the subgrid forcing that has the sign of a tendency; `q_subgrid_forcing` has either, by version."""
EPSILON = 1e-5
"""Added to variances by PyTorch's batch normalisation."""


def ross_fcnn(folder) -> NetworkClosure:
    """The network of Ross et al. (2023), doi:10.1029/2022MS003258, as `S` of q from q (or q, u, v) of all layers, s⁻².

    `folder` is `models/fcnn_q_to_Sqtot1` of github.com/m2lines/pyqg_parameterization_benchmarks (MIT licence), or what
    their `FCNNParameterization` saves: models/0, models/1 ..., a network for each layer. Needs no PyTorch, and executes
    nothing of a file: pickles may name arrays, dictionaries and their scaler only. Batch normalisation has its value
    after training. The published one holds for *eddy*, operator 1, 64² points on 1000 km; of *jet*, lower layer, it
    explains less than nothing (R² −.83). An `nn.FullyCNN` per layer, whose last convolution sees zeros beyond the
    domain. Trainable as any `NetworkClosure`; weights come in JAX's default precision.

    Raises `FileNotFoundError` for a folder without models, `ValueError` for other inputs, targets, paddings and layers.
    """
    parts = sorted(Path(folder).glob("models/*/weights.pt"), key=lambda path: path.parent.name)
    if not parts:
        raise FileNotFoundError(
            f"{folder} has no models/0/weights.pt; it is the folder models/fcnn_q_to_Sqtot1 of a clone of "
            "https://github.com/m2lines/pyqg_parameterization_benchmarks"
        )
    nets, scales, layers = [], [], range(len(parts))
    for layer, path in enumerate(parts):
        inputs, targets = (_unpickled(path.with_name(f"{name}.pkl")) for name in ("inputs", "targets"))
        names = tuple(dict.fromkeys(name for name, _ in inputs))
        padding = path.with_name("padding")
        padding = padding.read_text().strip() if padding.exists() else "circular"
        expected = [(name, number) for name in names for number in layers]
        if list(map(tuple, inputs)) != expected or not set(names) <= {"q", "u", "v"}:
            raise ValueError(f"{path.parent}: inputs are all layers of q, u or v, name by name; got {inputs}")
        if list(map(tuple, targets)) != [(FORCING, layer)]:
            raise ValueError(f"{path.parent}: expected the target ({FORCING!r}, {layer}); got {targets}")
        if padding != "circular":
            raise ValueError(f"{path.parent}: expected padding 'circular'; got {padding!r}")
        scale_in, scale_out = (_unpickled(path.with_name(f"{name}_scale.pkl")) for name in ("input", "output"))
        if np.any(scale_out.mu):
            raise ValueError(f"{path.parent}: outputs are scaled about zero; got a mean of {scale_out.mu}")
        nets.append(_network(_state(path), np.ravel(scale_in.mu) / np.ravel(scale_in.sd)))
        scales.append((np.ravel(scale_in.sd), np.ravel(scale_out.sd)))
        if not np.array_equal(scales[0][0], scales[-1][0]):
            raise ValueError(f"{path.parent} divides its inputs by {scales[-1][0]}, models/0 by {scales[0][0]}")
    outputs = np.concatenate([out for _, out in scales])
    return NetworkClosure(nn.Concatenated(tuple(nets)), names, ("q",), scales[0][0], outputs)


def _network(state: dict, centre: np.ndarray) -> nn.FullyCNN:
    """The eight convolutions with what lies between them folded in; `centre`: mean of the inputs over their scale."""
    weights, biases = [], []
    scale, shift = np.ones(len(centre)), -centre  # of what enters a layer
    for number in range(0, 22, 3):
        weight = state[f"{number}.weight"].astype(float)
        if number < 21:
            biases.append(state[f"{number}.bias"] + np.einsum("ocab,c->o", weight, shift))
            weights.append(weight * scale[:, None, None])
            normal = {name: state[f"{number + 2}.{name}"].astype(float) for name in ("weight", "bias")}
            scale = normal["weight"] / np.sqrt(state[f"{number + 2}.running_var"] + EPSILON)
            shift = normal["bias"] - scale * state[f"{number + 2}.running_mean"]
    put = lambda a: jnp.asarray(a, float)
    return nn.FullyCNN((*map(put, weights), put(weight)), tuple(map(put, biases)), put(scale), put(shift))


class _Scaler:
    """Their mean `mu` and standard deviation `sd`."""


def _storage(kind: type) -> type:
    return type(f"_{kind.__name__}", (), {"dtype": np.dtype(kind)})


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): _storage(np.float32),
    ("torch", "DoubleStorage"): _storage(np.float64),
    ("torch", "LongStorage"): _storage(np.int64),
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("pyqg_parameterization_benchmarks.neural_networks", "ChannelwiseScaler"): _Scaler,
}
"""What a pickle may name, and what it gets."""


class _Unpickler(pickle.Unpickler):
    """Of arrays and plain values; `stored` reads what a file of PyTorch keeps beside its pickle."""

    def __init__(self, file, source: Path, stored=None):
        super().__init__(file)
        self.source, self.stored = source, stored

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise ValueError(f"{self.source} asks for {module}.{name}, which is not read: it holds no plain arrays")
        return ALLOWED[module, name]

    def persistent_load(self, key):
        _, kind, name, *_ = key
        return self.stored(name, kind.dtype)


def _unpickled(path: Path):
    with open(path, "rb") as file:
        return _Unpickler(file, path).load()


def _state(path: Path) -> dict[str, np.ndarray]:
    """The state_dict in a file of PyTorch 1.6 and later: a zip file of a pickle and the arrays that it names."""
    with zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith("/data.pkl"))
        root = name.removesuffix("/data.pkl")
        stored = lambda key, dtype: np.frombuffer(file.read(f"{root}/data/{key}"), dtype.newbyteorder("<"))
        return dict(_Unpickler(io.BytesIO(file.read(name)), path, stored).load())
