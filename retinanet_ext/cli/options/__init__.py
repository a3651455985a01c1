"""Options that several commands share, each with what it sets in the config."""
