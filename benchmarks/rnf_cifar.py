"""RNF's order: all of CIFAR-10 first, then five tasks of ten random classes of CIFAR-100 (its section 4.3).

    python -m benchmarks.rnf_cifar --data DIR [--method NAME] [--scale small|paper] [--seeds N] [--out FILE.jsonl]

DIR holds `cifar10.tar.xz` and `cifar100.tar.xz`.
"""

from benchmarks.command import main

if __name__ == "__main__":
    main("rnf_cifar", "RNF's order: CIFAR-10, then five tasks of CIFAR-100")
