"""Time to `import workbench` and to `workbench --help`, each in fresh processes."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "import workbench": ([sys.executable, "-c", "import workbench"], 0.2),
    "workbench --help": ([str(Path(sys.executable).with_name("workbench")), "--help"], 0.5),
    "python -c pass": ([sys.executable, "-c", "pass"], None),
}


def run(times: int = 15) -> dict[str, float]:
    """Median seconds of each, printed beside the bound."""
    found = {}
    for name, (command, bound) in COMMANDS.items():
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            seconds.append(time.perf_counter() - start)
        found[name] = statistics.median(seconds)
        limit = "" if bound is None else f"  (at most {bound} s)"
        print(f"{name:20s}{found[name]:7.3f} s  spread {max(seconds) - min(seconds):.3f} s{limit}")
    return found


if __name__ == "__main__":
    run()
