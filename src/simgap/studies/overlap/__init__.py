"""Compare two revisions of a study, with two embedders for instance: the rows that they keep, and their conclusions."""
