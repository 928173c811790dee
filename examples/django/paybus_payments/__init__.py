"""django-payments over paybus: payments are handed over as commands, and their rows follow the events."""
