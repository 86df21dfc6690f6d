"""The puzzle: tasks, augmentations, token formats, grammar, submission files. numpy only, never torch."""
