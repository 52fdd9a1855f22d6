"""What the system tests are built from: a client of our own, and the programs under test."""
