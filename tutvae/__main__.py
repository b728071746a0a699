"""`python -m tutvae` is the command line."""

from tutvae.cli.main import app

app(prog_name="tutvae")
