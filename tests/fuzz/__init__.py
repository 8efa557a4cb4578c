"""Damaged models, bundles and graphs, by the thousand: `make fuzz`, and a bounded run in the tests.

Every case is a number: the same seed and number give the same damage.
"""
