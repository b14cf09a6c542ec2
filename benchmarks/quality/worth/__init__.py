"""Is it worth it? Experiments that a sceptic would ask for; `docs/worth.md` is made from what they keep."""
