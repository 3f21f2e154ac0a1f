"""The search space, and what Optuna proposes from it. No Ray.

Of search it imports config and storage.
"""
