"""Every figure that the README quotes, against its peers, in one run: `make bench`.

The longer comparison of a trained run with a GPT-Neo (`make bench-quality`) takes about 40 minutes.
"""

import argparse

from benchmarks import (
    blimp,
    caching,
    components,
    distributed,
    extraction,
    fields,
    importing,
    neurons,
    patching,
    probing,
    scaling,
    start,
    sweeping,
    training,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["nano", "tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="a contestant and round")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print("# Start-up")
    start.run()
    print("\n# Importing")
    importing.run(args.rounds, args.threads)
    print("\n# Caching")
    for shape in ("nano", "base"):
        caching.run(shape, args.rounds, args.seconds, args.threads)
    print("\n# Patching")
    for shape in ("tiny", "base"):
        patching.run(shape, args.rounds, args.threads)
    print("\n# Components")
    components.run("tiny", args.threads)
    print("\n# Neurons over a corpus")
    neurons.run(threads=args.threads)
    print("\n# Activations for probes")
    extraction.run(threads=args.threads)
    print("\n# Fitting probes")
    probing.run(args.threads)
    print("\n# Scaling laws")
    scaling.run()
    print("\n# BLiMP")
    blimp.main([])
    print("\n# Training step")
    for shape in args.shapes:
        training.run(shape, args.rounds, args.seconds, args.threads)
    print("\n# What a member of a sweep costs beyond its training")
    sweeping.run()
    print("\n# Two processes beside one")
    distributed.run()
    print("\n# What each field costs")
    fields.run("small", args.rounds, threads=args.threads)


if __name__ == "__main__":
    main()
