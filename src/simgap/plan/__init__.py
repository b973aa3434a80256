"""What a study will need before it is begun: rows, disk, reading, memory, hours and cost of every stage."""
