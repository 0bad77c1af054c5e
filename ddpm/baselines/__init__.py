"""Small models of other families, to compare a DDPM with."""
