"""Train, evaluate, sweep and use CPANet. See ``python run.py --help``."""

from cpanet.__main__ import main

if __name__ == "__main__":
    main()
