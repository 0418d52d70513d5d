"""Words: vocabularies, prompt templates, text banks and their cache."""
