"""Data sets that people correct: edits of label images, their log, and the folders that hold them.

Every module of this package runs in gateways, so it needs NumPy only; TIFF files are read and written by tifffile.
"""
