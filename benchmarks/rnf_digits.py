"""RNF's order where CIFAR-100 is not to be had: all of CIFAR-10, then five tasks of ten digits.

    python -m benchmarks.rnf_digits --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `cifar10.tar.xz` and `mnist.npz`. The digits are in a frame of the size of CIFAR's pictures; from the second
of the five on, their pixels are in another fixed order in each task. As in the paper, ten classes of photographs come
first, and then five times ten classes that have nothing to do with them.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("rnf_digits", "RNF's order, with digits: CIFAR-10, then five tasks of ten digits")
