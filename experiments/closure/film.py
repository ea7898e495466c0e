"""The animation of the report: a player that needs no library."""

import base64
import html
import io
import json
from collections.abc import Mapping

import numpy as np

from hybridgcm import draw, plot

if __package__:
    from . import figures
else:
    import figures

TALLEST = 16000
"""Height in pixels up to which all browsers take an image."""


def player(results: Mapping) -> str:
    """HTML of the player, empty without frames.

    All frames are one tall grey JPEG, a column per model; the script in `report.html` cuts a frame out, scales it and
    gives it its colours. A JPEG of values is a quarter of a PNG of colours and looks the same.
    """
    animation = results.get("animation") or {"frames": {}}
    frames = {name: np.asarray(a) for name, a in animation["frames"].items() if figures.finite(a)}
    if not frames:
        return ""
    limit, count = draw.bound(frames.values()), min(map(len, frames.values()))
    height, width = (2 * n for n in next(iter(frames.values())).shape[1:])
    chosen = range(0, count, -(-count * height // TALLEST))
    rows = [np.concatenate([figures.refined(a[i], 2)[::-1] for a in frames.values()], 1) for i in chosen]
    data = {
        "width": width,
        "height": height,
        "labels": [f"day {animation['time'][i]:.1f}" for i in chosen],
        "palette": plot.diverging()(np.arange(256), bytes=True)[:, :3].ravel().tolist(),
        "strip": "data:image/jpeg;base64," + base64.b64encode(_jpeg(np.concatenate(rows) / limit)).decode(),
    }
    canvas = '<canvas width="{}" height="{}" role="img" aria-label="{} in motion"></canvas>'
    films = "".join(
        f"<div>{name}{canvas.format(3 * width, 3 * height, name)}</div>" for name in map(html.escape, frames)
    )
    side = next(iter(frames.values())).shape[-1]
    caption = (
        f"Upper-layer potential vorticity, shades up to ±{limit / 1e-5:.1f} × 10⁻⁵ s⁻¹, the {side}² fields drawn by "
        "Fourier interpolation. The runs start together and part after some weeks, as chaos has it."
    )
    return (
        f'<figure id="film"><div class="plate"><div class="films">{films}</div>'
        '<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(rows) - 1}" value="0" aria-label="frame"><output></output></div></div>'
        f"<figcaption><b></b>{caption}</figcaption></figure>"
        "<noscript><p>The animation needs JavaScript.</p></noscript>"
        f'<script type="application/json" id="film-data">{json.dumps(data)}</script>'
    )


def _jpeg(a):
    """Values between −1 and 1 as the bytes of a grey JPEG."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(np.rint(np.clip(a, -1, 1) * 127.5 + 127.5).astype(np.uint8))
    image.save(file, "JPEG", quality=90, optimize=True)
    return file.getvalue()
