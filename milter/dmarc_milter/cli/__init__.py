"""The command line: `main` reads the arguments, one module a command."""
