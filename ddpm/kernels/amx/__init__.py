"""The network on CPUs with AMX: feature maps as tiles, and kernels of our own that take them."""
