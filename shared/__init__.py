"""What gateways and workers have in common: the wire, the bus, settings, errors, telemetry."""
