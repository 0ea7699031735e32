"""What the HTTP services and their clients share."""
