"""A run in the tools that its users have already: trackers, registries, serving, data cards.

Each needs an extra, which is imported where it is asked for. Of search it imports run, results,
storage and config.
"""
