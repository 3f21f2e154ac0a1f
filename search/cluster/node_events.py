"""What happens to a cluster while a search runs on it, in a line for the person who watches."""

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
TOLD_ELSEWHERE = (
    "Raylet is terminated",  # the same death, reported again with 20 lines of a log
    "infeasible resource requests",  # until the autoscaler has added a node; see pending_trials
)


def hear_news(say: Say) -> None:
    """Takes what Ray tells of its nodes, which it would print on stdout, where `--json` is alone.

    Args:
        say: Takes a line; called in a thread of Ray's.
    """
    take_messages(partial(_tell, say))


def _tell(say: Say, messages: Sequence[str]) -> None:
    for message in messages:
        dead = DEAD_NODE.search(message)
        if dead is not None:
            say(
                f"the cluster has lost node {dead['address']} ({dead['id'][:8]}): its trials "
                "continue elsewhere, from their last kept state"
            )
        elif not any(words in message for words in TOLD_ELSEWHERE):
            say(f"Ray: {' '.join(message.split())[:300]}")


@contextmanager
def head_watched(run: RunFolder, joined: bool, say: Say) -> Iterator[None]:
    """Says so when the cluster's head is gone; Ray ends the process a minute later, wordless.

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
    told, missed = False, 0
    while not done.wait(LOOK_S):
        missed = 0 if _answers(head) else missed + 1
        if missed == 2 and not told:
            told = True
            say(
                f"the cluster's head at {head} does not answer; if it stays away, Ray ends this "
                "search within a minute. All finished epochs are kept: on another head, "
                f"`pawtune resume {run.place} --address HOST:PORT`"
            )
        elif told and not missed:
            told = False
            say(f"the cluster's head at {head} answers again")


def _answers(head: str) -> bool:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True
