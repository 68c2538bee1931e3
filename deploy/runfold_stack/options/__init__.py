"""Command line options that several commands share: filters, selections, values, line input.

Invalid values are reported with the option's name and the allowed values, and end the command with
exit code 2.
"""
