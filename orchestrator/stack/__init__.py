"""The embedded store, Ray and MLflow of `up`."""
