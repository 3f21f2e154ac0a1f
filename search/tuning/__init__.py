"""The driver's loop on Ray Tune: proposals in, decisions and records out.

Of search it imports sampling, tensorboard, progress, cluster, storage and config.
"""
