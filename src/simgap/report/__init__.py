"""The page in which a study is shown."""
