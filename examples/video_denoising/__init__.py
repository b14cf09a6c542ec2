"""The quickstart: search a network with generated weights that removes noise from real video."""
