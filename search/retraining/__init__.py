"""Trials trained again: confirm, refit, reproduce.

Of search it imports worker, shared_work, results, progress, cluster, storage and config.
"""
