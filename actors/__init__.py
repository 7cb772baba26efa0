"""How Reileta lives: the actor runtime, and the actors that are shells around its rules."""
