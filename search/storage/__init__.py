"""A run on disk or in an object store: paths, records, locks, synchronisation. No Ray, no Keras.

Of search it imports config.
"""
