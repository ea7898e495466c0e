"""Networks that map `[channel, y, x]` to `[channel, y, x]`."""

from hybridgcm.nn.conv import CNN as CNN
from hybridgcm.nn.conv import guillaumin_zanna as guillaumin_zanna
