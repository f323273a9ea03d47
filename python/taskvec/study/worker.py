"""`python -m taskvec.study.worker JOB`: how the process of another environment is started."""

import sys

from .running.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
