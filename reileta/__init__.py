"""What Reileta is: identifiers, errors, settings, the pure rules, and the database."""

__version__ = "0.1.0"
