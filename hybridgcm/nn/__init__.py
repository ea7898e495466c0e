"""Networks that map `[channel, y, x]` to `[channel, y, x]`."""

from hybridgcm.nn.conv import CNN as CNN
from hybridgcm.nn.conv import PolarCNN as PolarCNN
from hybridgcm.nn.conv import ResCNN as ResCNN
from hybridgcm.nn.conv import guillaumin_zanna as guillaumin_zanna
from hybridgcm.nn.conv import polar_convolution as polar_convolution
from hybridgcm.nn.local import LocalConvolution as LocalConvolution
from hybridgcm.nn.local import OperatorSum as OperatorSum
from hybridgcm.nn.local import local_sfno as local_sfno
from hybridgcm.nn.local import neural_operator as neural_operator
from hybridgcm.nn.operators import FNO as FNO
from hybridgcm.nn.operators import AbstractOperator as AbstractOperator
from hybridgcm.nn.operators import SpectralConvolution as SpectralConvolution
from hybridgcm.nn.operators import ZonalConvolution as ZonalConvolution
from hybridgcm.nn.operators import apply as apply
from hybridgcm.nn.samplers import AbstractSampler as AbstractSampler
from hybridgcm.nn.samplers import FlowMatching as FlowMatching
from hybridgcm.nn.samplers import Gaussian as Gaussian
from hybridgcm.nn.samplers import sample as sample
from hybridgcm.nn.sphere import ColumnNetwork as ColumnNetwork
from hybridgcm.nn.sphere import ScaleNetwork as ScaleNetwork
from hybridgcm.nn.sphere import WithLatitude as WithLatitude
from hybridgcm.nn.unet import SphericalUNet as SphericalUNet
from hybridgcm.nn.unet import UNet as UNet
