"""Events of a cluster's nodes while a search runs on it, reported in one line each."""

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import ray

from pawtune.search.cluster.ray_internals import take_messages
from pawtune.search.storage.run_folder import RunFolder

Say = Callable[[str], None]
LOOK_S = 5.0
ANSWER_S = 3.0
DEAD_NODE = re.compile(
    r"node with node id: (?P<id>\w+) and address: (?P<address>\S+) .*marked dead", re.DOTALL
)
REPORTED_ELSEWHERE = (
    "Raylet is terminated",  # the same death, reported again with 20 lines of a log
    "infeasible resource requests",  # until the autoscaler has added a node; see pending_trials
)


def report_node_events(say: Say) -> None:
    """Reports Ray's messages about nodes, which Ray would print on stdout into the JSON.

    Args:
        say: Takes a line; called in a thread of Ray's.
    """
    take_messages(partial(_report, say))


def _report(say: Say, messages: Sequence[str]) -> None:
    for message in messages:
        dead = DEAD_NODE.search(message)
        if dead is not None:
            say(
                f"the cluster has lost node {dead['address']} ({dead['id'][:8]}): its trials "
                "continue elsewhere, from their last kept state"
            )
        elif not any(words in message for words in REPORTED_ELSEWHERE):
            say(f"Ray: {' '.join(message.split())[:300]}")


@contextmanager
def head_watched(run: RunFolder, joined: bool, say: Say) -> Iterator[None]:
    """Warns when the cluster's head is gone: a minute later Ray ends the process without a message.

    Args:
        run: Run that can be resumed.
        joined: The cluster is another's; one that this process started ends with it anyway.
        say: Takes a line.
    """
    if not joined:
        yield
        return
    done = threading.Event()
    head = str(ray.get_runtime_context().gcs_address)
    watch = threading.Thread(target=_watch, args=(head, run, say, done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()


def _watch(head: str, run: RunFolder, say: Say, done: threading.Event) -> None:
    reported, missed = False, 0
    while not done.wait(LOOK_S):
        missed = 0 if _answers(head) else missed + 1
        if missed == 2 and not reported:
            reported = True
            say(
                f"the cluster's head at {head} does not answer; if it stays away, Ray ends this "
                "search within a minute. All finished epochs are kept: on another head, "
                f"`pawtune resume {run.place} --address HOST:PORT`"
            )
        elif reported and not missed:
            reported = False
            say(f"the cluster's head at {head} answers again")


def _answers(head: str) -> bool:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True
