"""Stand-ins for services of a cluster."""
