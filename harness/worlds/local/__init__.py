"""The local world and any lab file: real processes on real hosts, seen through clients that nobody here wrote."""
