"""The science: an image in, an answer out.

Images, networks, tasks, bundles and prediction. Does not use a cluster, a registry or a server.
"""
