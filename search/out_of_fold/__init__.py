"""What out-of-fold predictions show about a run's data: wrong labels, calibration, advice.

It may import `results`, `shared_work`, `cluster`, `storage` and `config`. It starts no Ray.
"""
