"""What data-parallel training sends in each step: SqueezeDet against VGG16+ConvDet.

Two processes with gloo on this machine train on windows of random pixels, each with half of the
batch, as ``squeezedet train`` under torchrun does. Printed are the bytes of gradients that every
step adds up over the processes, the time that adding them up takes alone (median), and its share
of a step in which nothing else happens meanwhile. With ``--mbit`` the processes live in two
network namespaces of Linux with a link of that rate between them (needs root, ip and tc)::

    python benchmarks/communication.py [--mbit 1000] [--steps 10]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from squeezedet.models.network import Labels
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.distributed import Processes, join

NETWORKS = {"SqueezeDet": "squeezedet", "VGG16+ConvDet": "vgg16"}
WINDOW = (208, 64)
HOSTS = tuple(f"squeezedet-{os.getpid()}-{side}" for side in "ab")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
WARM_UP = 3
PER_MB = 1e6


def measure(backbone: str, batch: int, steps: int, processes: Processes) -> dict[str, float]:
    """Bytes, and median seconds of a step without and with communication, and of that alone."""
    torch.manual_seed(processes.rank)
    detector = ConvDet(ConvDetConfig(backbone=backbone, size=WINDOW))  # type: ignore[arg-type]
    for layer in detector.frozen:
        detector.get_submodule(layer).requires_grad_(False)
    images = torch.randint(0, 256, (batch, 3, WINDOW[1], WINDOW[0]), dtype=torch.uint8)
    box = torch.tensor([[40.0, 20, 80, 50]])
    targets = detector.targets(Labels([box] * batch, [torch.zeros(1).long()] * batch, [box[:0]] * batch, WINDOW))
    learnt = [p for p in detector.parameters() if p.requires_grad]

    def seconds(network: torch.nn.Module) -> float:
        taken = []
        for _ in range(WARM_UP + steps):
            processes.any(False)  # both begin at the same time
            start = time.perf_counter()
            detector.zero_grad()
            terms = detector.loss(network(images), targets)
            torch.autograd.backward(torch.stack(list(terms.values())).sum())
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[WARM_UP:])

    alone = seconds(detector)
    gradients = torch.cat([p.grad.flatten() for p in learnt if p.grad is not None])
    sums = []
    for _ in range(WARM_UP + steps):
        processes.any(False)
        start = time.perf_counter()
        processes.sum(gradients)
        sums.append(time.perf_counter() - start)
    processes.broadcast(detector)
    together = seconds(processes.network(detector))
    return {
        "size_bytes": gradients.numel() * gradients.element_size(),
        "alone_s": alone,
        "sum_s": statistics.median(sums[WARM_UP:]),
        "together_s": together,
    }


def work(options: argparse.Namespace) -> None:
    """One of the two processes; the first prints what was measured."""
    torch.set_num_threads(1)
    with join() as processes:
        found = {
            name: measure(backbone, options.batch, options.steps, processes) for name, backbone in NETWORKS.items()
        }
        if processes.first:
            print(json.dumps(found))


@contextmanager
def hosts(mbit: int | None) -> Iterator[Sequence[list[str]]]:
    """Before the command of each process: nothing, or to run it behind a link of that rate."""
    if mbit is None:
        yield [], []
        return
    a, b = HOSTS
    setup = [f"netns add {a}", f"netns add {b}", f"link add {a[-1]}0 netns {a} type veth peer name {b[-1]}0 netns {b}"]
    try:
        for line in setup:
            subprocess.run(["ip", *line.split()], check=True)
        for host, address in zip(HOSTS, ADDRESSES, strict=True):
            device, inside = f"{host[-1]}0", ["ip", "netns", "exec", host]
            subprocess.run(["ip", "-n", host, "address", "add", f"{address}/24", "dev", device], check=True)
            for name in ("lo", device):
                subprocess.run(["ip", "-n", host, "link", "set", name, "up"], check=True)
            shape = f"tc qdisc add dev {device} root tbf rate {mbit}mbit burst 256kb latency 50ms"
            subprocess.run([*inside, *shape.split()], check=True)
        yield tuple(["ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME={host[-1]}0"] for host in HOSTS)
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], check=False)


def both(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Start the two processes; what the first one found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = "127.0.0.1" if options.mbit is None else ADDRESSES[0]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": address, "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    arguments = ["--batch", str(options.batch), "--steps", str(options.steps)]
    with hosts(options.mbit) as before:
        started = [
            subprocess.Popen(
                [*where, sys.executable, __file__, *arguments],
                env={**os.environ, **world, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank, where in enumerate(before)
        ]
        answers = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process failed")
    found: dict[str, dict[str, float]] = json.loads(answers[0])
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mbit", type=int, help="rate of the link between two namespaces")
    parser.add_argument("--batch", type=int, default=2, help="images of each process")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        work(options)
        return
    link = f"{options.mbit} Mbit/s between two namespaces" if options.mbit else "one machine"
    print(f"{platform.machine()}, two processes of one thread, gloo, {link}, windows "
          f"{WINDOW[0]}x{WINDOW[1]}, {options.batch} images each, "
          f"n = {options.steps} steps, medians")  # fmt: skip
    print("| network | sent in a step, MB | adding up, ms | step of one process, ms "
          "| step of two, ms | share of adding up |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for name, row in both(options).items():
        share = row["sum_s"] / (row["alone_s"] + row["sum_s"])
        print(f"| {name} | {row['size_bytes'] / PER_MB:.1f} | {1000 * row['sum_s']:.1f} "
              f"| {1000 * row['alone_s']:.0f} | {1000 * row['together_s']:.0f} "
              f"| {share:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
