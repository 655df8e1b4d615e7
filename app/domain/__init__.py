"""The vocabulary of Throughline and its pure state machines.

Nothing in here does I/O, reads a clock or knows a library that does: values in, values out.
"""
