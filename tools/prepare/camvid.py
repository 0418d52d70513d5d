"""Prepares one data set; ``--help`` says which files it takes and writes."""

import sys

from ovseg.datasets.prepare.camvid import prepare
from ovseg.datasets.prepare.files import main

if __name__ == "__main__":
    sys.exit(main(prepare))
