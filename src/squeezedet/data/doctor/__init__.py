"""The doctor: reads all of a data set before a training, and says what is wrong with it."""
