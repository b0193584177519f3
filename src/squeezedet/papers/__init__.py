"""What reproduces the papers, and nothing else needs: the rivals, the tables, the figures."""
