"""`python -m coseglib`: the command line."""

import sys

from coseglib.cli.main import main

sys.exit(main())
