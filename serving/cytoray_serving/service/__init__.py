"""The parts of a service: configuration, deployments, autoscaling, and its start and end."""
