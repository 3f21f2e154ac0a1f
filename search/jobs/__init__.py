"""A search as a job of a Ray cluster.

Of search it imports config, storage and run.
"""
