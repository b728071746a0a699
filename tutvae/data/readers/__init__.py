"""Reading files: finding, opening, hashing and downloading them, and the layouts they come in."""
