"""Storage locations by URI: files of this machine, S3 stores and web addresses."""
