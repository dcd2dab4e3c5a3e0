"""The verbs of the console command: their arguments, and what they call.

Heavy imports happen inside a verb, so that ``lsfd --help`` is instant.
"""
