"""Many models, many processes, many machines."""
