"""`python -m coseglib.cli`: the command line."""

import sys

from coseglib.cli.main import main

sys.exit(main())
