"""Measurements, each one command; nothing in here is a test and nothing has a pass mark."""
