"""Trained closures that come with the package, each a verified file with a card."""

from hybridgcm.pretrained.shelf import available as available
from hybridgcm.pretrained.shelf import card as card
from hybridgcm.pretrained.shelf import pretrained as pretrained
from hybridgcm.pretrained.shelf import put as put
