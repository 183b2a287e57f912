"""Split-MNIST: ten digits as five tasks of two, learned one after another, judged on the test split.

    python -m benchmarks.split_mnist --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `mnist.npz`. No image is kept after its task. `--http` does the same through a running service and worker:
every task is uploaded as a zip of PNGs, and every test image is predicted over HTTP.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("split_mnist", "Split-MNIST: five tasks of two digits")
