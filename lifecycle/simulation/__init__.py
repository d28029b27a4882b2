"""A day of a pool on a virtual clock, decided by the code that decides live. Nothing here has a clock or a socket of
its own; chance comes from seeds."""
