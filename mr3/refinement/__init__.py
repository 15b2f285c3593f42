"""Iterative refinement of rubrics: propose, judge, accept on a second set, report the gain on a third."""
