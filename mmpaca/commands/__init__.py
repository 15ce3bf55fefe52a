"""Subcommands of ``mmpaca``, a module each.

A module has ``HELP`` (a line of ``mmpaca -h``), a docstring (the description in its own help),
``EXAMPLE`` (a command line), ``add_arguments(parser)`` and ``run(args)``, which returns the exit
status or None for 0. Only ``run`` imports anything heavy; an exception in
``mmpaca.commands.reporting.ERRORS`` that it raises is printed in one line.
"""
