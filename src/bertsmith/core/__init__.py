"""What every room stands on: config, bundle, errors, events, device, pictures and the report."""
