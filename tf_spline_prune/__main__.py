"""`python -m tf_spline_prune`: the command line."""

import sys

from tf_spline_prune.cli import main

sys.exit(main())
