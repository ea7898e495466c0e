"""Trained closures that come with the package, each a verified file with a card, and readers of published ones."""

from hybridgcm.pretrained.published import ross_fcnn as ross_fcnn
from hybridgcm.pretrained.shelf import available as available
from hybridgcm.pretrained.shelf import card as card
from hybridgcm.pretrained.shelf import pretrained as pretrained
from hybridgcm.pretrained.shelf import put as put
