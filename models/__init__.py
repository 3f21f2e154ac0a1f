"""Keras models of a search: what a trial trains, described by frozen specs.

`spec` is plain pydantic and cheap to import; most other modules need Keras. Nothing here knows
Ray, the files of a run, or `search`.
"""
