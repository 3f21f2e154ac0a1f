"""`pawtune`: the console script."""

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; bad input is one line on stderr and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's banner helps nobody here
    from search.cli import app

    try:
        app(arguments)
    except ValueError as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"UserError", "DataError", "ModelError"}:
            raise
        print(f"pawtune: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
