"""Keras models of a search: what a trial trains, described by frozen specs.

`models.spec` is plain pydantic and cheap to import; `convnet`, `transfer`, `build` and
`training` need Keras. Nothing here knows Ray or the files of a run.
"""
