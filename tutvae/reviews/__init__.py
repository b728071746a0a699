"""The generated corpus: a grammar of short reviews whose every probability is known."""
