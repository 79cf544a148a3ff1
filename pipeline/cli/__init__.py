"""The command line: commands, options, output and exit codes. It contains no business rules and may import all packages."""
