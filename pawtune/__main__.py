"""`pawtune`, and `python -m pawtune`: the command line as a process of its own."""

import gc

from pawtune.search.cli import main as command_line


def main() -> None:
    """Runs the command line and exits."""
    try:
        command_line.main()
    finally:
        # The interpreter would go through all objects once more: a second after a search.
        gc.freeze()


if __name__ == "__main__":
    main()
