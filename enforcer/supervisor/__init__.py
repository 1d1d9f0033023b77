"""The root process: policy, kernel maps, namespaces and listeners, workers, the one SQLite writer, the control socket.

`service.py` puts the pieces together; the others are one piece each. Kept empty: `control.py` is also the CLI's way in.
"""
