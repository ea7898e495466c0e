"""Networks that map `[channel, y, x]` to `[channel, y, x]`."""

from hybridgcm.nn.conv import CNN as CNN
from hybridgcm.nn.conv import PolarCNN as PolarCNN
from hybridgcm.nn.conv import ResCNN as ResCNN
from hybridgcm.nn.conv import guillaumin_zanna as guillaumin_zanna
from hybridgcm.nn.conv import polar_convolution as polar_convolution
from hybridgcm.nn.operators import FNO as FNO
from hybridgcm.nn.operators import AbstractOperator as AbstractOperator
from hybridgcm.nn.operators import SpectralConvolution as SpectralConvolution
from hybridgcm.nn.operators import ZonalConvolution as ZonalConvolution
from hybridgcm.nn.operators import apply as apply
from hybridgcm.nn.samplers import AbstractSampler as AbstractSampler
from hybridgcm.nn.samplers import FlowMatching as FlowMatching
from hybridgcm.nn.samplers import Gaussian as Gaussian
from hybridgcm.nn.samplers import sample as sample
from hybridgcm.nn.unet import UNet as UNet
