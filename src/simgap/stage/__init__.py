"""What every stage command does around its one library call."""
