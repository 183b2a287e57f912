"""Split-CIFAR-100: ten tasks of ten random classes, the same for all seeds (RNF, section 4.3).

    python -m benchmarks.split_cifar100 --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `cifar100.tar.xz`, with `train/<class>/<number>.jpg` and `test/<class>/<number>.jpg`.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("split_cifar100", "Split-CIFAR-100: ten tasks of ten classes")
