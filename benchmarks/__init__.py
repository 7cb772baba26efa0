"""How fast Reileta is, one file per question, with its peers beside it.

`python -m benchmarks.run` (`make bench`) starts the servers and asks all questions; each question
is a command of its own too (`python -m benchmarks.rooms --url …`) for a server elsewhere.
"""
