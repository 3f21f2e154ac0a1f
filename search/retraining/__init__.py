"""Trials trained again: confirm, refit, reproduce, folds.

Of search it imports worker, shared_work, results, progress, cluster, storage and config.
"""
