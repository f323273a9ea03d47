"""`python -m taskvec.study.worker JOB`: the entry point of the process that runs in another environment."""

import sys

from .running.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
