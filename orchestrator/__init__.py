"""A queue for diffusion work on a Ray cluster whose truth lives in an S3-compatible store."""
