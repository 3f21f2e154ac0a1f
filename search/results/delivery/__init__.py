"""Models as files that others use: written with their card, read back whoever wrote them, applied.

Of search it imports results and storage.
"""
