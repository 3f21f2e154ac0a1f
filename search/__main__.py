"""`pawtune`: the console script."""

import os
import sys


def main() -> None:
    """Runs the command line; bad input ends with one line on stderr and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's banner helps nobody here
    from search.cli import app
    from search.errors import UserError

    try:
        app()
    except (UserError, ValueError) as error:
        # Data and model errors are ValueErrors too; theirs are imported where they arise.
        if type(error).__name__ not in ("UserError", "DataError", "ModelError"):
            raise
        print(f"pawtune: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
