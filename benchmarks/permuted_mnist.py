"""Permuted MNIST: ten tasks of ten digits, the pixels of each in another fixed order; the first as they are.

    python -m benchmarks.permuted_mnist --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `mnist.npz`. The classes have the same names in every task, so that an answer without a task id is right when
it names the digit, whichever task it was recognised in.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("permuted_mnist", "Permuted MNIST: ten tasks of ten digits")
