"""One trial on a worker process.

Of search it imports shared_work, cluster, storage and config.
"""
