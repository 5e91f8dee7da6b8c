"""`python -m dreambooth3d.cli` is the console script."""

from dreambooth3d.cli.main import main

main()
