"""The shared services of the platform: data sets, the model registry, evaluation, telemetry, settings."""
