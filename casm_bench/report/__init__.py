"""Tables and figures, made from records alone: nothing here measures, and torch is not needed."""
