"""The verbs about searches on a cluster.

Like all verbs, they import any room.
"""
