"""The Ray cluster: join it, measure it, wait for it, report lost nodes.

Of search it imports config and storage.
"""
