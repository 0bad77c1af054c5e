"""What `ddpm.config` gives: the configurations, one module each."""
