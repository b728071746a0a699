"""Measuring: bounds, likelihoods, what codes hold, clusters and classes."""
