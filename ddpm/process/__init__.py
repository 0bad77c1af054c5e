"""The diffusion process: schedules, noise, the chain in both directions, the bound."""
