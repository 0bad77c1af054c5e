"""Denoising diffusion probabilistic models: the mathematics, the U-Net and the loops."""
