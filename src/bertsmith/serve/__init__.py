"""A bundle as a service: routes, queue, worker, keys, limits, figures."""
