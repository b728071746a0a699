"""Training: the loop, the device it runs on, and what it keeps."""
