"""What out-of-fold predictions show about a run's data: wrong labels, calibration, advice.

Of search it imports results, shared_work, storage and config. It starts no Ray.
"""
