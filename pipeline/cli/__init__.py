"""The command line's parts; `__main__` puts them together. They wire and print, and decide nothing."""
