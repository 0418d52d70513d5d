"""The command line. Each sub-command is a module with ``add_parser``, listed in ``main.COMMANDS``.

``--help`` has to answer in 0.3 s, so these modules import torch, numpy and rich only inside functions.
"""
