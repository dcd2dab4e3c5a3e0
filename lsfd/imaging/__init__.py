"""Image files, colour and MATLAB-exact bicubic: arrays in, arrays out."""
