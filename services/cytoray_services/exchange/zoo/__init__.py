"""Packages of the BioImage Model Zoo: written, and read as bundles."""
