"""The data factory: labelled tasks in, teacher traces that are right under every strategy out, in curriculum order."""
