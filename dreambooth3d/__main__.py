"""`python -m dreambooth3d` is the console script."""

from dreambooth3d.cli.main import main

main()
