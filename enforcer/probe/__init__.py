"""The catalogue of ways out, tried on this host: each technique outside an executor, where it must work, and inside."""
