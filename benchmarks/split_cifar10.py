"""Split-CIFAR-10: five tasks of two classes, airplane and automobile first.

    python -m benchmarks.split_cifar10 --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `cifar10.tar.xz`, with `train/<class>/<number>.jpg` and `test/<class>/<number>.jpg`.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("split_cifar10", "Split-CIFAR-10: five tasks of two classes")
