"""Networks that map `[channel, y, x]` to `[channel, y, x]`."""

from hybridgcm.nn.conv import CNN as CNN
