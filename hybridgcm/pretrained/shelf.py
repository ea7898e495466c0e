"""Reading and writing the closures on the shelf: `NAME.ckpt` beside its card `NAME.md`."""

from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp

from hybridgcm import checkpoint
from hybridgcm.blueprint import blueprint
from hybridgcm.closures import AbstractClosure
from hybridgcm.files import atomic

SHELF = Path(__file__).parent
PARTS = ("## Data", "## Training", "## Scores", "## Where it fails")
"""What every card tells."""


def pretrained(name: str = "", folder: Path = SHELF) -> AbstractClosure:
    """A trained closure by name, for `Model(equation, stepper, closure, dt)`; its card says what it is good for.

    Every bit is verified, and nothing in a file is executed. Weights come in JAX's default precision. `folder`: other
    than the package's, for files that `put` wrote. Raises `ValueError` that lists what there is, a line each, for no
    name and for an unknown one, and `checkpoint.CorruptFile` for a damaged file.
    """
    path = Path(folder) / f"{name}.ckpt"
    known = available(folder)
    if name not in known:
        lines = "\n".join(f"  {other}: {about}" for other, about in known.items()) or "  none yet"
        asked = f"there is no pretrained closure {name!r}" if name else "a pretrained closure needs a name"
        raise ValueError(f"{asked}; there are\n{lines}\nhybridgcm.pretrained is also a module: see its card(name)")
    closure = checkpoint.load(path, blueprint(checkpoint.read_header(path)["tree"]))
    return jax.tree.map(lambda a: jnp.asarray(a, float) if eqx.is_inexact_array(a) else a, closure)


def available(folder: Path = SHELF) -> dict[str, str]:
    """One line about every pretrained closure, by name."""
    return {path.stem: checkpoint.read_meta(path).get("about", "") for path in sorted(Path(folder).glob("*.ckpt"))}


def card(name: str, folder: Path = SHELF) -> str:
    """The model card of a pretrained closure, Markdown. Raises `ValueError` as `pretrained`."""
    if name not in available(folder):
        pretrained(name, folder)
    return (Path(folder) / f"{name}.md").read_text(encoding="utf-8")


def put(name: str, closure: AbstractClosure, about: str, text: str, meta: Mapping | None = None, folder=SHELF) -> Path:
    """Write a closure and its card so that `pretrained(name)` gives it; returns the file.

    `about`: one line; `text`: the card, with the headings of `PARTS`; `meta`: more for the file, what JSON can hold.
    Raises `ValueError` if the closure would not come back from its file alone: if a class in it is not one of
    `hybridgcm.closures` or `hybridgcm.nn`, or a setting no plain value; and for a card that lacks a part.
    """
    if missing := [part for part in PARTS if part not in text]:
        raise ValueError(f"the card of {name!r} lacks {', '.join(missing)}; every card has {', '.join(PARTS)}")
    if "\n" in about or not about:
        raise ValueError(f"about is one line; got {about!r}")
    path = Path(folder) / f"{name}.ckpt"
    part = path.with_suffix(".new")
    checkpoint.save(part, closure, dict(meta or {}) | {"about": about})
    try:
        checkpoint.load(part, blueprint(checkpoint.read_header(part)["tree"]))
    except ValueError as error:
        part.unlink()
        raise ValueError(f"{name!r} cannot be shipped: {error}") from error
    with atomic(path.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return part.replace(path)
