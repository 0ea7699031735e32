"""Data sets that are not a local folder: S3, volumes, and what is downloaded of them."""
