"""How much memory engines take: guessed from their files, then measured on this machine and remembered."""
