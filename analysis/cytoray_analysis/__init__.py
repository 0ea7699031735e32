"""The science: an image in, an answer out.

Images, networks, tasks, bundles and the one way to predict. Knows no cluster, no registry and no server.
"""
