"""The catalogue: modules that ask questions, and what a site is composed of from their answers.

Everything here is pure but for reading the folders of modules (:mod:`alveole.catalogue.sources`).
"""
