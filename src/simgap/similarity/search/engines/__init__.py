"""Search nearest neighbours exactly. All engines return the same bits, but differ in the hardware they use."""
