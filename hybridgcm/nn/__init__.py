"""Networks that map `[channel, y, x]` to `[channel, y, x]`."""

from hybridgcm.nn.conv import CNN as CNN
from hybridgcm.nn.conv import ResCNN as ResCNN
from hybridgcm.nn.conv import guillaumin_zanna as guillaumin_zanna
from hybridgcm.nn.operators import FNO as FNO
from hybridgcm.nn.operators import AbstractOperator as AbstractOperator
from hybridgcm.nn.operators import SpectralConvolution as SpectralConvolution
from hybridgcm.nn.operators import apply as apply
from hybridgcm.nn.unet import UNet as UNet
