"""Searches over image classifiers on Ray Tune, and what comes out of them.

The story is `driver`; the rooms below it, from the command line down to the vocabulary:

    cli          verbs: options, one call, print          report       the page of a run
    jobs         a search as a Ray job                    retraining   confirm, refit, reproduce
    worker       one trial on a worker                    tuning       the driver's loop on Ray Tune
    shared_work  what trials share, made once             results      ranking, scoring, export
    progress     what a person sees                       tensorboard  event files and server
    cluster      join, measure, wait                      storage      a run on disk or in a store
    integrations trackers, serving, data cards            out_of_fold  audit, advice: unseen images
    doctor       what this machine lacks                  config       what a search is
    sampling     the space and its proposals

Imports run downwards only; `tests/test_architecture.py` holds which room may import which.
"""
