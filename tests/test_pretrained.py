"""Pretrained closures: structure from the file alone for every closure of the library, verified, listed, with cards."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double
from test_closures import CLOSURES, start

import hybridgcm as hg
from hybridgcm import checkpoint, nn
from hybridgcm.blueprint import blueprint
from hybridgcm.fingerprint import digest
from hybridgcm.pretrained import available, card, pretrained, put
from hybridgcm.pretrained.shelf import PARTS

CARD = "# A network\n\n" + "\n\n".join(f"{part}\n\nMade in a test." for part in PARTS)


def network(activation=jax.nn.silu):
    net = nn.CNN((2, 4, 2), (3, 3), key=jr.key(1), activation=activation)
    net = jax.tree.map(lambda a: a + 0.1, net)
    return hg.NetworkClosure(net, ("q",), ("q",), [5e-6, 5e-7], [1e-11, 1e-12])


@pytest.mark.parametrize("name", CLOSURES)
def test_every_closure_comes_back_from_its_file_alone(name, tmp_path):
    closure = CLOSURES[name]()
    closure = closure if isinstance(closure, hg.AbstractClosure) else closure(double(16))
    hg.save(tmp_path / "c.ckpt", closure)
    like = blueprint(checkpoint.read_header(tmp_path / "c.ckpt")["tree"])
    assert digest(hg.load(tmp_path / "c.ckpt", like)) == digest(closure)


@pytest.mark.parametrize("net", [nn.UNet, nn.FNO], ids=lambda net: net.__name__)
def test_every_network_comes_back_from_its_file_alone(net, tmp_path):
    made = nn.UNet(2, 2, key=jr.key(0)) if net is nn.UNet else nn.FNO(2, 2, modes=(4, 4), key=jr.key(0))
    closure = hg.NetworkClosure(made, ("q",), ("q",))
    hg.save(tmp_path / "c.ckpt", closure)
    like = blueprint(checkpoint.read_header(tmp_path / "c.ckpt")["tree"])
    assert digest(hg.load(tmp_path / "c.ckpt", like)) == digest(closure)


def test_a_shipped_closure_gives_the_same_forcing(tmp_path):
    closure = network()
    put("mine", closure, "a network", CARD, folder=tmp_path)
    again = pretrained("mine", tmp_path)
    flow = hg.QuasiGeostrophic.two_layer(hg.Torus(16, 1e6), tau=86400.0)
    model = hg.Model(flow, hg.AB3(), closure, dt=3600.0)
    fields = model.view(start(model))
    key = jr.key(0)
    ours, theirs = (one(fields, flow.grid, None, key)[0]["q"] for one in (again, closure))
    assert float(jnp.abs(ours).max()) > 0
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_what_there_is_is_listed_for_no_name_and_for_a_wrong_one(tmp_path):
    put("mine", network(), "a network of four channels", CARD, folder=tmp_path)
    for name in ("", "yours"):
        with pytest.raises(ValueError, match="mine: a network of four channels"):
            pretrained(name, tmp_path)
    assert available(tmp_path) == {"mine": "a network of four channels"} and card("mine", tmp_path) == CARD
    with pytest.raises(ValueError, match="a pretrained closure needs a name"):
        hg.pretrained()


@pytest.mark.parametrize("name", [*available(), None])
def test_the_ones_of_the_package_load_and_have_whole_cards(name):
    if name is None:
        return
    assert isinstance(hg.pretrained(name), hg.AbstractClosure)
    assert all(part in card(name) for part in PARTS)


def test_a_damaged_file_is_refused(tmp_path):
    path = put("mine", network(), "a network", CARD, folder=tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(checkpoint.CorruptFile):
        pretrained("mine", tmp_path)


class Foreign(hg.AbstractClosure):
    """A closure that the package does not have."""

    amplitude: jax.Array = hg.param(default=1.0)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"q": self.amplitude * fields["q"]}, memory


@pytest.mark.parametrize(
    ("closure", "reason"),
    [(Foreign(), "Foreign|no plain value"), (network(lambda x: x**2), "lambda"),
     (network(jnp.sin), "no plain value")],
)  # fmt: skip
def test_what_would_not_come_back_is_not_shipped(closure, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        put("mine", closure, "a closure", CARD, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_card_without_its_parts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lacks ## Where it fails"):
        put("mine", network(), "a network", CARD.replace(PARTS[-1], ""), folder=tmp_path)


@pytest.mark.parametrize(
    "kind", ["hybridgcm.AbstractClosure()", "hybridgcm.Model()", "os.system('true')", "hybridgcm.jax()"]
)
def test_a_header_cannot_name_anything_but_closures_and_networks(kind):
    with pytest.raises(ValueError):
        blueprint([{"path": "the whole", "kind": kind}])
