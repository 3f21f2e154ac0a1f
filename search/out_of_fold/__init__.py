"""What predictions for unseen images tell of a run's data: wrong labels, calibration, advice.

It may import `results`, `shared_work`, `cluster`, `storage` and `config`. It starts no Ray.
"""
