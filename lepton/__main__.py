"""`python -m lepton` is the command line."""

from lepton.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
