"""`python -m pawtune`: the same as the console script."""

from pawtune.search.cli.main import main

if __name__ == "__main__":
    main()
