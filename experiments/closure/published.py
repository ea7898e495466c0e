"""Published scores of closures in the two-layer *eddy* and *jet* set-ups, to print beside ours.

`SIMILARITIES`: Ross et al. (2023), doi:10.1029/2022MS003258: one run each, 64², dt 3600 s, ten years, truth at 256²;
the values that the notebook of m2lines/pyqg_parameterization_benchmarks shows. Higher is better, 1 is perfect.

`ERRORS`: Perezhogin, Zanna and Fernandez-Granda (2023), doi:10.1029/2023MS003681: (distributional, spectral) errors of
ten members over 20 years at 64², truth at 256² coarse-grained by the operator; lower is better. From the working
results that m2lines/pyqg_generative keeps at its tag v1.0.0 (notebooks/difference.json); the paper retrained its
models, so they are the same experiment but not the figures' very values. None: fewer than ten members finished.
"""

NAMES = (
    *("q1", "q2", "u1", "u2", "v1", "v2", "KE1", "KE2", "Ens1", "Ens2"),
    *("KEspec1", "KEspec2", "Ensspec1", "Ensspec2", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec"),
)
"""Order of the similarities, names as in `hybridgcm.metrics.ross_similarities`."""

# fmt: off
_ROSS = {
    "eddy": {
        "Smagorinsky, C = .15": (
            -1.152, .045, -2.190, -.994, -1.563, -.916, -1.356, -.793, -1.110, -1.389,
            -.786, -.670, -.658, .128, -.715, -.530, -.075, -.670),
        "Backscatter, C = sqrt(.007), 1.2": (
            .429, .768, .684, .940, .640, .774, .655, .895, .037, .916,
            .930, .860, .910, .859, .798, .823, .755, .860),
        "Hybrid symbolic": (
            .453, .676, .755, .771, .761, .846, .701, .805, .100, .756,
            .765, .877, .735, .682, .754, .821, .714, .877),
        "CNN, offline": (
            .862, .802, .611, .841, .438, .766, .687, .829, .524, .696,
            .663, .836, .588, .738, .814, .780, .761, .836),
    },
    "jet": {
        "Smagorinsky, C = .15": (
            -.844, -.120, -.893, -1.520, -.917, -.694, -.519, -.766, -.604, -.774,
            -.412, -.028, -.325, .034, -1.480, -.298, -3.054, -.028),
        "Backscatter, C = sqrt(.007), 1.2": (
            .379, -.241, .296, -.358, .248, .654, .327, .767, -.027, .842,
            .505, .630, .389, -1.669, -.329, .149, -1.426, .630),
        "Hybrid symbolic": (
            .301, .830, .095, .635, .210, .336, .192, .453, .009, .279,
            .733, .743, .747, .434, .512, .305, -.239, .743),
        "CNN, offline": (
            -.859, -6.077, -1.105, -5.117, -.909, -1.124, -.452, -3.774, .728, -1.346,
            -1.900, -6.116, -4.520, -34.43, -6.639, -5.688, -3.148, -6.116),
    },
}

ERRORS = {
    ("eddy", "operator1", 3600): {
        "No closure": (.0996, .2722), "CNN": (.0676, .1106), "Mean and variance": (.0428, .1038),
        "GAN": (.0303, .1221), "VAE": (.0216, .0800), "VAE, 1000 epochs": (.0208, .0692),
    },
    ("eddy", "operator1", 14400): {
        "No closure": (.0890, .2184), "CNN": (.0342, .0483), "Mean and variance": (.0247, .0399),
        "GAN": (.0188, .0648), "VAE": (.0143, .0448), "VAE, 1000 epochs": (.0114, .0357),
    },
    ("eddy", "operator2", 3600): {
        "No closure": (.0683, .2407), "CNN": (.0819, .2388), "Mean and variance": (.0833, .2358),
        "GAN": (.0818, .2065), "VAE": (.0700, .2050), "VAE, 1000 epochs": (.0839, .2429),
    },
    ("eddy", "operator2", 14400): {
        "No closure": (.0563, .2008), "CNN": (.0661, .1741), "Mean and variance": (.0640, .1691),
        "GAN": (.0749, .1729), "VAE": (.0605, .1554), "VAE, 1000 epochs": (.0678, .1735),
    },
    ("jet", "operator1", 3600): {"No closure": (.1053, .2140)},
    ("jet", "operator1", 14400): {
        "No closure": (.0902, .1572), "CNN": None, "Mean and variance": (1.237, 4.193),
        "GAN": None, "VAE": (.0954, .436), "VAE, 1000 epochs": (.0850, .333),
    },
}
"""By (configuration, operator, time step in s): (distributional, spectral) per closure, fresh noise every step."""

YARDSTICK = dict(zip(
    (*NAMES[:10], "KEspec1", "KEspec2", "Eflux", "APEgenspec"),
    (.06012, .09477, .06587, .12815, .06742, .11695, .11917, .18954, .04408, .10966, .23831, .31392, .37163, .16481),
    strict=True,
))
"""The parts of "No closure", eddy, operator 1, 3600 s: what a solver must reproduce before its closures are judged."""
# fmt: on

SIMILARITIES = {
    case: {closure: dict(zip(NAMES, values, strict=True)) for closure, values in rows.items()}
    for case, rows in _ROSS.items()
}
"""By configuration and closure: the 18 similarities by name."""
