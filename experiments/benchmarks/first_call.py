"""Seconds until the first call of a jitted program returns, in this fresh process, as one JSON line.

    python experiments/benchmarks/first_call.py {step,gradient} N {float32,float64}

`run.py` starts it; the call runs ten steps (50 in the gradient), so nearly all of it is tracing and compiling.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main(program: str, n: int, precision: str):
    began = time.perf_counter()
    import equinox as eqx
    import jax

    jax.config.update("jax_enable_x64", precision == "float64")
    from experiments.benchmarks import cases

    if program == "step":
        function, *arguments = cases.step_program(n, precision, 10)
    else:
        loss, arguments = cases.gradient_program("initial state", n, precision, 50, 10)
        function = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    ready = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    end = time.perf_counter()
    print(json.dumps({"seconds": end - ready, "with_imports": end - began}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
