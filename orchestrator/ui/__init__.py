"""The page: what `list`, `status`, `explain` and `top` know, in a browser, from the store alone."""
