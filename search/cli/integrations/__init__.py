"""Verbs that hand a run to other tools: push, serve.

Like all verbs, they import any room.
"""
