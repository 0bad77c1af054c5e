"""Kernels that compute `ddpm.network` faster than torch, taken where the processor has them."""
