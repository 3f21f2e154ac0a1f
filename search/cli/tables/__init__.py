"""What the verbs print as tables and lines.

Like all verbs, they import any room.
"""
