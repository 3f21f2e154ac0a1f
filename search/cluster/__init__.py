"""The Ray cluster: join it, measure it, wait for it, hear of its losses.

Of search it imports config and storage.
"""
