"""Do two revisions of a study, by two embedders for instance, keep the same rows and come to the same conclusion?"""
