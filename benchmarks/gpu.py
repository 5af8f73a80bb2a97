"""The training step on a GPU, beside a plain step of the same network, precision and batch.

    python benchmarks/gpu.py --out benchmarks/gpu.md

Steps: `plain` (forward, backward, SGD), `fresh` (the current classifier judges), `hist` (a past one
does), `fixed` (Baseline), each also in the published update order where that differs; in fp32,
tf32 and bf16, with and without channels_last, and compiled (`--settings` chooses). All steps of a
setting take turns, so that a clock that changes meets all alike. What is printed:

- ms per step (median), and as a multiple of the plain step of the same setting;
- share of the two floors, bytes and FLOPs, that the step reaches: the bandwidth and the FLOP rate
  of this GPU are measured first, by a copy and by matrix products;
- peak memory, and whether the step ever waited for the device;
- images per second of methods' maps, in batches and one at a time.

What a pass over one 224-pixel image of ResNet-50 costs is counted: 8.2 GFLOP for the forward pass
and for each half of the backward pass (gradients of the inputs, of the weights); and the bytes that
cannot be avoided when every layer reads its input and writes its output once. For other classifiers
the two shares mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, profiler
from torch.nn import functional as F

from casm_bench import registry
from casm_bench.api import SaliencyMethod
from casm_bench.backbones.arithmetic import Arithmetic, forbid_tf32
from casm_bench.backbones.classifier import Classifier, build_classifier
from casm_bench.files import write_atomically
from casm_bench.methods._algorithm1 import Algorithm1, Game
from casm_bench.provenance import provenance
from casm_bench.recipes import Precision

Step = Callable[[Tensor, Tensor], object]

GFLOP_PER_PASS = 8.2  # ResNet-50, one image of 224 pixels
GB_PER_PASS = {"forward": 0.181, "inputs": 0.245, "weights": 0.050}  # the same, two bytes a value
PASSES = {  # how many forward passes, gradients of inputs, gradients of weights
    "plain": (1, 1, 1),
    "fresh": (2, 3, 2),
    "fresh torch04": (2, 3, 2),
    "hist": (2, 2, 1),
    "fixed": (2, 1, 0),
}
SETTINGS = (
    *("fp32", "fp32+channels_last", "tf32", "tf32+channels_last", "bf16", "bf16+channels_last"),
    "bf16+channels_last+compile",
)
METHODS = ("casm", "grad", "grad-cam", "mask")  # those of them that are registered


@dataclass(frozen=True)
class Setting:
    """How the networks of one group of steps calculate."""

    precision: str
    channels_last: bool
    compile: bool

    def __str__(self) -> str:
        extras = [name for name in ("channels_last", "compile") if getattr(self, name)]
        return " + ".join([self.precision, *extras])

    @classmethod
    def named(cls, name: str) -> Setting:
        """The setting that is printed as `name`, such as `bf16+channels_last+compile`."""
        precision, *extras = name.replace(" ", "").split("+")
        unknown = {*extras} - {"channels_last", "compile"}
        if precision not in get_args(Precision) or unknown:
            raise argparse.ArgumentTypeError(f"{name!r}: PRECISION[+channels_last][+compile]")
        return cls(precision, "channels_last" in extras, "compile" in extras)

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.precision, self.compile)


class AlwaysPast(random.Random):
    """Chance under which a past classifier judges at every step."""

    def random(self) -> float:
        return 0.0


# --- steps --------------------------------------------------------------------------------------


def plain_step(classifier: Classifier, arithmetic: Arithmetic) -> Step:
    model = arithmetic.compiled(classifier.__call__)
    optimizer = torch.optim.SGD(
        classifier.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def step(images_BCHW: Tensor, labels_B: Tensor) -> None:
        with arithmetic.forward(images_BCHW.device):
            logits_BK = model(images_BCHW).float()
        optimizer.zero_grad()
        F.cross_entropy(logits_BK, labels_B).backward()
        optimizer.step()

    return step


def steps_of(setting: Setting, classifier: Classifier) -> dict[str, Step]:
    """All kinds of steps, each on networks of its own."""
    fresh = {"strategy": "L"}
    options = {"fresh": fresh, "hist": {"strategy": "L100"}, "fixed": {"strategy": "F"}}
    if not setting.compile:
        options["fresh torch04"] = fresh | {"update_order": "torch04"}
    steps = {"plain": plain_step(copy.deepcopy(classifier).train(), setting.arithmetic)}
    for name, chosen in options.items():
        game = Game(Algorithm1(classifier, **chosen), setting.arithmetic)
        if name == "hist":
            game.chance = AlwaysPast()
        steps[name] = game.step
    return steps


# --- measuring ------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def peaks(setting: Setting, device: torch.device, small: bool) -> tuple[float, float]:
    """Measured GB/s of a copy, and TFLOP/s of a matrix product in this precision."""
    side = 512 if small else 8192
    source = torch.randn(side, side, 4, device=device)
    target = torch.empty_like(source)
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    with setting.arithmetic.matrix_products():
        copying, multiplying = (
            min(seconds(work, device) for _ in range(5))
            for work in (lambda: target.copy_(source), lambda: a @ b)
        )
    return 2 * source.nbytes / copying / 1e9, 2 * side**3 / multiplying / 1e12


def waits(step: Step, batch: tuple[Tensor, Tensor], device: torch.device) -> bool | None:
    """Whether the step waits for the GPU anywhere; None where there is none."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*batch)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def measure(setting: Setting, options: argparse.Namespace) -> list[dict[str, object]]:
    """A row per kind of step under one setting."""
    device = torch.device(options.device)
    memory = torch.channels_last if setting.channels_last else torch.contiguous_format
    classifier = build_classifier(options.classifier, 1000, options.size)
    classifier = classifier.to(device, memory_format=memory)
    images_BCHW = torch.randn(options.batch, 3, options.size, options.size, device=device)
    labels_B = torch.randint(1000, (options.batch,), device=device)
    batch = images_BCHW.contiguous(memory_format=memory), labels_B
    bandwidth, rate = peaks(setting, device, small=device.type == "cpu")
    with setting.arithmetic.matrix_products():
        steps = steps_of(setting, classifier)
        for step in steps.values():
            for _ in range(options.warm_up):
                step(*batch)
        if options.profile:
            with options.profile.open("a") as file:
                file.writelines(profiles(setting, steps, batch, device))
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, step in steps.items():
                times[name].append(seconds(lambda step=step: step(*batch), device))
        return [
            row(setting, name, times, batch, bandwidth, rate)
            | {"waits": waits(step, batch, device), "peak_gb": peak_memory(step, batch, device)}
            for name, step in steps.items()
        ]


def profiles(
    setting: Setting, steps: dict[str, Step], batch: tuple[Tensor, Tensor], device: torch.device
) -> Iterator[str]:
    """A table per kind of step: what took its time, the longest first."""
    kinds = [profiler.ProfilerActivity.CPU]
    kinds += [profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    for name, step in steps.items():
        with profiler.profile(activities=kinds) as seen:
            seconds(lambda step=step: step(*batch), device)
        by = f"self_{device.type}_time_total"
        table = seen.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=70)
        yield f"{setting}, {name}\n{table}\n"


def peak_memory(step: Step, batch: tuple[Tensor, Tensor], device: torch.device) -> float | None:
    """GB allocated at most during one step beyond what was there before it."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step(*batch)
    synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 1e9, 2)


def row(
    setting: Setting,
    name: str,
    times: dict[str, list[float]],
    batch: tuple[Tensor, Tensor],
    bandwidth: float,
    rate: float,
) -> dict[str, object]:
    ratios = [own / plain for own, plain in zip(times[name], times["plain"], strict=True)]
    took = statistics.median(times[name])
    images, _, height, width = batch[0].shape
    work = images * height * width / 224**2
    bytes_per_value = 2 if setting.precision == "bf16" else 4
    gigabytes = sum(map(lambda n, gb: n * gb, PASSES[name], GB_PER_PASS.values()))
    bytes_s = work * gigabytes * bytes_per_value / 2 / bandwidth
    flops_s = work * sum(PASSES[name]) * GFLOP_PER_PASS / 1e3 / rate
    return asdict(setting) | {
        "step": name,
        "ms": round(1e3 * took, 2),
        "times_plain": round(statistics.median(ratios), 3),
        "bytes_floor_share": round(bytes_s / took, 3),
        "flops_floor_share": round(flops_s / took, 3),
        "images_per_second": round(images / took, 1),
    }


def measure_methods(options: argparse.Namespace) -> list[dict[str, object]]:
    """Images per second of methods' maps, in batches of 16 and one at a time."""
    device = torch.device(options.device)
    forbid_tf32()
    classifier = build_classifier(options.classifier, 1000, options.size).eval()
    classifier = classifier.requires_grad_(False).to(device, memory_format=torch.channels_last)
    images_BCHW = torch.randn(options.map_batch, 3, options.size, options.size, device=device)
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    labels_B = torch.randint(1000, (options.map_batch,), device=device)
    rows = []
    known = {facts.name for facts in registry.all_facts()}
    for name in [name for name in METHODS if name in known]:
        method = registry.get(name)(classifier)

        def best(images_BCHW: Tensor, method: SaliencyMethod = method) -> float:
            labels = labels_B[: len(images_BCHW)]
            return min(seconds(lambda: method.maps(images_BCHW, labels), device) for _ in range(3))

        batched, single = best(images_BCHW), best(images_BCHW[:1])
        rows.append(
            {
                "method": name,
                "images_per_second": round(options.map_batch / batched, 1),
                "one_at_a_time": round(1 / single, 1),
            }
        )
    return rows


# --- the table ------------------------------------------------------------------------------------


def markdown(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(str(row[name]) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def heading(options: argparse.Namespace) -> str:
    on_gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else platform.processor() or "CPU"
    made = provenance(device=device, threads=0, classifier_sha256=None, data_sha256="")
    return (
        f"{device}, torch {torch.__version__}, {options.classifier}, batch {options.batch}, "
        f"{options.size} px, {options.rounds} rounds; commit {made['commit']}.\n\n"
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--classifier", default="resnet50")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--map-batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument(
        "--settings",
        nargs="+",
        type=Setting.named,
        default=[Setting.named(name) for name in SETTINGS],
        metavar="SETTING",
        help=f"PRECISION[+channels_last][+compile]; default: {' '.join(SETTINGS)}",
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="where each kind of step spends its time"
    )
    parser.add_argument("--no-methods", dest="methods", action="store_false")
    parser.add_argument("--out", type=Path, help="FILE.md; FILE.json gets the same numbers")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    maps = measure_methods(options) if options.methods else []
    rows: list[dict[str, object]] = []
    for setting in options.settings:
        rows += measure(setting, options)
        print(f"{setting}:", *(f"{r['step']} {r['times_plain']}x" for r in rows[-5:]), flush=True)
    text = heading(options) + markdown(rows) + ("\n" + markdown(maps) if maps else "")
    print(text)
    if options.out:
        write_atomically(options.out, text)
        content = {"heading": heading(options).strip(), "steps": rows, "maps": maps}
        write_atomically(options.out.with_suffix(".json"), json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
