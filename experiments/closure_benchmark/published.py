"""Published scores of closures, as rows of the leaderboard: what was measured elsewhere, by whom, under which choices.

`ERRORS`: Perezhogin, Zanna and Fernandez-Granda (2023), doi:10.1029/2023MS003681: (distributional, spectral) of ten
members over 20 years, truth at 256² coarse-grained by the operator, closures trained on *eddy* by the same operator,
fresh noise every step. From the working results in m2lines/pyqg_generative (tag v1.0.0, notebooks/difference.json);
the paper retrained its models: the same experiment, but not the figures' very values. "× .5" or "× .8": the closure's
output multiplied by that number, chosen by these same scores. None: fewer than ten members finished, or not run.

Similarities are those of `experiments.closure.published`: Ross et al. (2023), doi:10.1029/2022MS003258.
`OFFLINE`: their network's R² and correlation, upper and lower layer.
"""

from experiments.closure import published

PEREZHOGIN = "Perezhogin et al. (2023), doi:10.1029/2023MS003681"
ROSS = "Ross et al. (2023), doi:10.1029/2022MS003258"
OFFLINE = {
    "eddy": {"correlation": (0.94, 0.97), "R2": (0.87, 0.95)},
    "jet": {"correlation": (0.92, 0.89), "R2": (0.79, -0.83)},
}

# fmt: off
_TABLES = {
    ("eddy", "op1", None): {
        "No closure": ((.1997, .5141), (.0890, .2184), (.0366, .0794)),
        "CNN, least squares": ((.1098, .2569), (.0342, .0483), (.0058, .0221)),
        "Mean and variance (Guillaumin–Zanna)": ((.0621, .1707), (.0247, .0399), (.0193, .0532)),
        "GAN, residual": ((.0262, .1530), (.0188, .0648), (.0093, .0241)),
        "GAN, full, recomputed": ((.0346, .1992), (.0155, .0494), (.0148, .0352)),
        "GAN, recomputed": (None, (.0166, .0317), None),
        "GAN, flux form": ((.0413, .1452), (.0164, .0415), (.0044, .0120)),
        "GAN, U-Net": ((1.34, 2.96), (.0230, .0465), (.0103, .0377)),
        "VAE": ((.0251, .1259), (.0143, .0448), (.0097, .0267)),
        "VAE, 1000 epochs": ((.0359, .1786), (.0114, .0357), (.0044, .0141)),
    },
    ("eddy", "op2", None): {
        "No closure": ((.1016, .4778), (.0563, .2008), (.0350, .0838)),
        "CNN, least squares": ((.2010, .5550), (.0661, .1741), (.0381, .0847)),
        "Mean and variance (Guillaumin–Zanna)": ((.1945, .5297), (.0640, .1691), (.0316, .0737)),
        "GAN, residual": ((.1071, .3099), (.0749, .1729), (.0284, .0530)),
        "GAN, flux form": ((.1548, .3876), (.0938, .2073), (.0251, .0537)),
        "VAE": ((.1810, .4936), (.0605, .1554), (.0346, .0738)),
        "VAE, 1000 epochs": ((.1958, .5124), (.0678, .1735), (.0115, .0282)),
        "GAN, recomputed × .5": ((.0740, .2953), None, None),
        "VAE × .5": (None, (.0249, .1119), None),
        "VAE, 1000 epochs × .5": (None, (.0240, .1174), None),
        "VAE, 1000 epochs × .8": (None, None, (.0063, .0219)),
    },
    ("eddy", "op1", 3600): {
        "No closure": ((.2559, .6947), (.0996, .2722), (.0368, .0858)),
        "CNN, least squares": (None, (.0676, .1106), (.0090, .0362)),
        "Mean and variance (Guillaumin–Zanna)": (None, (.0428, .1038), None),
        "GAN, residual": ((.0552, .3689), (.0303, .1221), (.0079, .0277)),
        "VAE": ((.0555, .3337), (.0216, .0800), (.0074, .0271)),
        "VAE, 1000 epochs": ((.0526, .3673), (.0208, .0692), (.0063, .0246)),
    },
    ("eddy", "op2", 3600): {
        "No closure": (None, (.0683, .2407), None), "CNN, least squares": (None, (.0819, .2388), None),
        "Mean and variance (Guillaumin–Zanna)": (None, (.0833, .2358), None),
        "GAN, residual": (None, (.0818, .2065), None), "VAE": (None, (.0700, .2050), None),
        "VAE, 1000 epochs": (None, (.0839, .2429), None), "VAE × .5": (None, (.0376, .1638), None),
    },
    ("jet", "op1", None): {
        "No closure": ((.1293, .2923), (.0902, .1572), (.0512, .1227)),
        "Mean and variance (Guillaumin–Zanna)": (None, (1.237, 4.193), (.235, .517)),
        "GAN, residual": (None, None, (.234, .682)),
        "GAN, full": (None, (.0817, .539), (.0423, .155)),
        "GAN, flux form": (None, (.0575, .2505), (.0717, .146)),
        "VAE": ((8.5, 50.), (.0954, .436), (.0424, .0921)),
        "VAE, 1000 epochs": ((3.0, 12.9), (.0850, .333), (.199, .636)),
        "VAE, 1000 epochs × .5": ((.2320, .8167), (.0599, .1343), None),
        "VAE × .5": (None, None, (.0394, .0937)),
        "GAN, flux form × .5": (None, None, (.0431, .0653)),
    },
    ("jet", "op2", None): {
        "No closure": ((.0834, .2656), (.0529, .1454), (.0323, .1303)),
        "VAE, best variant": ((.0957, .599), (.0924, .462), (.0612, .276)),
        "VAE, 1000 epochs × .5": (None, (.0709, .1529), None),
    },
    ("jet", "op1", 3600): {
        "No closure": (None, (.1053, .2140), None), "GAN, flux form": (None, (.0562, .2433), None),
        "GAN, flux form × .5": (None, (.0655, .1139), None), "VAE, 1000 epochs × .5": (None, (.0622, .1606), None),
    },
    ("jet", "op2", 3600): {
        "No closure": (None, (.0668, .1982), None), "VAE × .5": (None, (.0538, .1808), None),
    },
}
"""By (flow, operator, time step in s; None: 14400 at 48² and 64², 7200 at 96²): errors at 48², 64², 96²."""
# fmt: on

ERRORS = {
    f"{flow}{n}-{operator}-{seconds or (7200 if n == 96 else 14400)}": {
        name: pairs[column] for name, pairs in rows.items() if pairs[column] is not None
    }
    for (flow, operator, seconds), rows in _TABLES.items()
    for column, n in enumerate((48, 64, 96))
    if any(pairs[column] is not None for pairs in rows.values())
}
"""By system and closure: (distributional, spectral)."""


def errors(system: str) -> dict[str, tuple[float, float]]:
    """Published errors of a system; empty where there are none."""
    return ERRORS.get(system, {})


def similarities(system: str) -> dict[str, dict[str, float]]:
    """Published similarities to print beside those of a system: of its flow at 64², operator 1; else empty.

    They were measured at 3600 s, over one run of ten years each, against the truth as it is, not coarse-grained.
    """
    flow = system.partition("64-op1-")[0]
    return published.SIMILARITIES.get(flow, {}) if "64-op1-" in system else {}


def best(system: str) -> tuple[float, float] | None:
    """The published pair with the smallest product of both errors at amplitude 1, no closure among them."""
    pairs = [pair for name, pair in errors(system).items() if "×" not in name and name != "No closure"]
    return min(pairs, key=lambda pair: pair[0] * pair[1], default=None)
