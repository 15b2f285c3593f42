"""What a trace says about its verdict: the conclusion it states, loops, the forcing sentence, criteria it names."""
