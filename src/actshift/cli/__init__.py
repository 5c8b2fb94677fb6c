"""Command-line interface: one module per verb, each imported only when its verb is run."""
