"""What this host and this kernel guarantee, promise by promise: every answer comes from doing the thing, none from a
version number or a configuration file alone. Everything is done in a throw-away place, which is removed again."""
