"""How figures come of what was measured in turns, and how they are told."""

import statistics
import sys


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def report(name, value, unit):
    print(f"BENCH {name} {value:.4g} {unit}" if value < 1000 else
          f"BENCH {name} {value:.0f} {unit}", flush=True)


def rotated(names, turn):
    """Each of them comes first in some turn, so that none gains by its place."""
    first = turn % len(names)
    return names[first:] + names[:first]


def median(results, key):
    return statistics.median(result[key] for result in results)


def median_ratio(results, others, key):
    """Turn by turn: what slows the machine down slows both, and the ratio stays."""
    return statistics.median(one[key] / other[key] for one, other in zip(results, others))
