"""Benchmarks of Reileta and of its peers, one file per question.

`python -m benchmarks.run` (`make bench`) starts the servers and runs all benchmarks. Each benchmark
is also a command of its own (`python -m benchmarks.rooms --url …`), for a server elsewhere.
"""
