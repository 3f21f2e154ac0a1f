"""Event files of trials and searches, and the TensorBoard server. No Ray.

Of search it imports report, results, storage and config.
"""
