"""Rules of a cluster: which node hosts what, and until when."""
