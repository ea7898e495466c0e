"""The same training in neuraloperator on PyTorch; importing this fails where it is not installed."""

import importlib.metadata
import os
import warnings

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # its threads spin otherwise: 50 times slower on a busy machine
import torch  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from neuralop.losses import H1Loss
    from neuralop.models import FNO
    from neuralop.training import AdamW

VERSION = importlib.metadata.version("neuraloperator")


def epoch(inputs: np.ndarray, outputs: np.ndarray, hidden: int, modes: int, batch: int):
    """(a call that trains one epoch on `[sample, 1, y, x]` and returns its last loss, number of weights)."""
    net = FNO(n_modes=(modes, modes), in_channels=1, out_channels=1, hidden_channels=hidden)
    optimiser = AdamW(net.parameters(), lr=1e-2, weight_decay=1e-4)
    loss, x, y = H1Loss(d=2), torch.tensor(inputs), torch.tensor(outputs)
    y = (y - y.mean()) / y.std()

    def call():
        order = torch.randperm(len(x))
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            optimiser.zero_grad()
            total = loss(net(x[chosen]), y[chosen])
            total.backward()
            optimiser.step()
        return np.asarray(total.item())

    return call, sum(p.numel() * (2 if p.is_complex() else 1) for p in net.parameters())
