"""What a person sees of a search, live or read from its folder.

Of search it imports results, cluster, storage and config.
"""
