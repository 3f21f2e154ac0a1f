"""The report of a run: one HTML page and its figures.

Of search it imports run, sampling, results, storage and config.
"""
