"""Several trials made into one model: a soft vote of theirs, or the average of their weights.

Of search it imports results and storage.
"""
