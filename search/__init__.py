"""Searches over image classifiers on Ray Tune, and what comes out of them.

The story is `driver`; `run` is what Python users hold. The rooms, each above what it imports, or to
the left of it:

    cli          verbs: options, one call, print     doctor        what this machine lacks
    tuning       the driver's loop on Ray Tune       jobs          a search as a Ray job
    tensorboard  event files and server              integrations  trackers, serving, data cards
    report       the page of a run
    retraining   confirm, refit, reproduce           out_of_fold   audit, advice: unseen images
    worker       one trial on a worker               progress      what a person sees
    shared_work  what trials share, made once        results       ranking, scoring, export
    cluster      join, measure, wait                 sampling      the space and its proposals
    storage      a run on disk or in a store         config        what a search is

`tests/test_architecture.py` holds which room may import which.
"""
