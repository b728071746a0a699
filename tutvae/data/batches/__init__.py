"""Batches of texts, images and labelled texts, all of them resumable."""
