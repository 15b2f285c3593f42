"""Where pools come from: files, hub sets and adapters, with columns renamed, languages tagged and prompts merged."""
