"""What the platform offers everyone: data sets, the model registry, evaluation, telemetry, settings."""
