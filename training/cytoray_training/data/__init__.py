"""The training data: decoded images on a node, or shards of them, and the batches cut from these."""
