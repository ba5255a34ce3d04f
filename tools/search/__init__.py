"""The best settings of a method for given data sets, chosen without a look at new classes or test images."""
