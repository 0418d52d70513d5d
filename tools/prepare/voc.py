"""Prepares one data set; ``--help`` says which files it takes and writes."""

import sys

from ovseg.datasets.prepare.files import main
from ovseg.datasets.prepare.voc import prepare

if __name__ == "__main__":
    sys.exit(main(prepare))
