"""``python -m alveole``: the same as the ``alveole`` program."""

from alveole.cli import main

main()
