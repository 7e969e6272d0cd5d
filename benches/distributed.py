#!/usr/bin/env python3
"""Times training on several ranks, this crate's and PyTorch's DistributedDataParallel over gloo, in turn.

    cargo build --release --features mpi --example workload
    python3 benches/distributed.py --ranks 2 --model cifar_resnet20 --batch 128
    sudo python3 benches/distributed.py --ranks 4 --model resnet50 --batch 16 --size 112 --steps 5 --link 1gbit 500ms
    python3 benches/distributed.py --paper 900 1800 0.05 0.9 125

The ranks are processes of one machine, with one thread each. With `--link RATE LATENCY` they live in two network namespaces, half of them in each,
joined by a link that lets RATE through in each direction and keeps packets for at most LATENCY (the limit of `tc`'s token bucket). `--batch` is the
number of images of all ranks together.

Rows: `tree 8`, equal bits at any number of ranks, from 8 shards; `tree N`, a shard for each rank; `any order`, MPI_Iallreduce from three ranks on; `pytorch`, DDP. The
ratio is the row's time divided by that of `any order`, round by round: the median, and the quartiles in brackets.

`--paper FORWARD BACKWARD LATENCY COPIES RATE` prints what the model in docs/DISTRIBUTED.md predicts for resnet50: milliseconds of a rank's forward and
backward pass, of a message's latency, milliseconds for each MB that packing and adding take, and the link's rate in MB/s. Needs: Open MPI; pip install torch torchvision timm.
"""
import argparse
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ADDRESSES = {"convnet-a": "10.9.0.1", "convnet-b": "10.9.0.2"}
LINE = re.compile(r"step ([\d.]+) ms \(fastest ([\d.]+)\); sent ([\d.]+) MB a step; messages ([\d.]+) ms, waited for ([\d.]+) ms; parameters (\w+); sums over the ranks of 16 bytes ([\d.]+) ms, of 4 MiB ([\d.]+) ms")


def make_link(rate, latency):
    """Makes two network namespaces, joined by a pair of virtual devices that are slowed down."""
    run = lambda command: subprocess.run(command.split(), check=True)
    remove_link()
    for space in ADDRESSES:
        run(f"ip netns add {space}")
        run(f"ip -n {space} link set lo up")
    run("ip link add convnet0 type veth peer name convnet1")
    for device, (space, address) in zip(("convnet0", "convnet1"), ADDRESSES.items()):
        run(f"ip link set {device} netns {space}")
        run(f"ip -n {space} link set {device} name link0")
        run(f"ip -n {space} addr add {address}/24 dev link0")
        run(f"ip -n {space} link set link0 up")
        run(f"ip netns exec {space} tc qdisc add dev link0 root tbf rate {rate} burst 256kb latency {latency}")


def remove_link():
    for space in ADDRESSES:
        subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)


def in_space(rank, ranks, link):
    """The beginning of the command that starts a rank, and its namespace's address."""
    if not link:
        return [], "127.0.0.1"
    space = list(ADDRESSES)[rank * 2 // ranks]
    return ["ip", "netns", "exec", space], ADDRESSES[space]


def ours(options, extra):
    command = [options.workload, "--distributed", "--model", options.model, "--batch", str(options.batch), "--threads", "1"]
    command += ["--steps", str(options.steps), *extra] + (["--size", str(options.size)] if options.size else [])
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if not options.link:
        start = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(options.ranks)]
        return LINE.search(subprocess.run(start + command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout).groups()
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as agent:
        # What mpirun calls instead of ssh: HOST COMMAND…; the second namespace is another host to it.
        agent.write('shift; exec ip netns exec convnet-b unshare -u bash -c "hostname convnet-b; $*"\n')
        agent.flush()
        half = options.ranks // 2
        start = f"mpirun --oversubscribe --bind-to none --mca plm_rsh_agent 'bash {agent.name}' --mca plm_rsh_no_tree_spawn 1"
        start += " --mca oob_tcp_if_include 10.9.0.0/24 --mca btl tcp,vader,self --mca btl_tcp_if_include 10.9.0.0/24 --mca pml ob1"
        start += f" -n {options.ranks} -H 10.9.0.1:{half},10.9.0.2:{half} {' '.join(command)}"
        start = ["ip", "netns", "exec", "convnet-a", "unshare", "-u", "bash", "-c", f"hostname convnet-a; {start}"]
        return LINE.search(subprocess.run(start, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout).groups()


def pytorch(options):
    processes = []
    for rank in range(options.ranks):
        prefix, address = in_space(rank, options.ranks, options.link)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": ADDRESSES["convnet-a"] if options.link else address}
        environment |= {"MASTER_PORT": "29511", "RANK": str(rank), "WORLD_SIZE": str(options.ranks)}
        environment |= {"GLOO_SOCKET_IFNAME": "link0" if options.link else "lo"}
        environment |= {"MALLOC_MMAP_THRESHOLD_": "10000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}
        command = [sys.executable, __file__, "--serve", *sys.argv[1:]]
        processes.append(subprocess.Popen(prefix + command, env=environment, text=True, stdout=subprocess.PIPE))
    outputs = [process.communicate()[0] for process in processes]
    return float(outputs[0].strip().splitlines()[-1])


def serve(options):
    """One of PyTorch's ranks: prints the median time of a step, in milliseconds."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from peers import build

    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    model, shape, classes = build(options.model)
    if options.size:
        shape = (shape[0], options.size, options.size)
    model = DistributedDataParallel(model.to(memory_format=torch.channels_last).train())
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(options.batch // world, *shape).to(memory_format=torch.channels_last)
    y = torch.arange(options.batch // world) % classes
    seconds = []
    for step in range(3 + options.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if step >= 3:
            seconds.append(time.perf_counter() - start)
    distributed.destroy_process_group()
    if rank == 0:
        print(1e3 * statistics.median(seconds))


def compare(options):
    ways = {
        "any order": lambda: ours(options, ["--any-order"]),
        f"tree {options.ranks}": lambda: ours(options, ["--shards", str(options.ranks)]),
        "tree 8": lambda: ours(options, ["--shards", "8"]),
        "pytorch": lambda: pytorch(options),
    }
    times, last = {way: [] for way in ways}, {}
    for round in range(options.rounds):
        for way in list(ways) if round % 2 == 0 else reversed(ways):
            found = ways[way]()
            times[way].append(float(found if way == "pytorch" else found[0]))
            last[way] = found
    print(f"{options.model}, {options.batch} images, {options.ranks} ranks, link: {' '.join(options.link or ['none'])}")
    for way, found in times.items():
        row = f"{way:10} {statistics.median(found):9.2f} ms"
        ratios = [time / base for time, base in zip(found, times["any order"])]
        first, median, third = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        row += f"  {median:.2f} [{first:.2f}, {third:.2f}]"
        if way != "pytorch":
            _, _, sent, messages, waited, digest, small, large = last[way]
            hidden = max(0, 1 - float(waited) / max(float(messages), 1e-9))
            row += f"  sent {sent} MB, messages {messages} ms, waited for {waited} ms, hidden {hidden:.0%}, parameters {digest}, sums of 16 bytes {small} ms, of 4 MiB {large} ms"
        print(row, flush=True)


def paper(forward, backward, latency, copies, rate):
    """The step of resnet50 on paper; times in milliseconds, sizes in MB (which over MB/s are seconds)."""
    size, buckets, buffers = 102.2, 25, 53_120 * 8e-6
    print(f"{'machines':>8} {'messages':>10} {'step':>10} {'efficiency':>10}")
    for machines in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        share, rounds = 2 * (machines - 1) / machines, 2 * math.log2(machines)
        gradients = buckets * rounds * latency + size * share * (1e3 / rate + copies)
        statistics_after = rounds * latency + buffers * share * (1e3 / rate + copies)
        # The first bucket, the last layers' gradients, is complete early in the backward pass; the last one only at its end.
        last = gradients / buckets
        step = forward + max(backward + last, 0.1 * backward + gradients) + statistics_after
        print(f"{machines:8} {gradients + statistics_after:10.0f} {step:10.0f} {(forward + backward) / step:10.0%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--link", nargs=2, metavar=("RATE", "LATENCY"))
    parser.add_argument("--workload", default="target/release/examples/workload")
    parser.add_argument("--paper", nargs=5, type=float, metavar=("FORWARD", "BACKWARD", "LATENCY", "COPIES", "RATE"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    if options.paper:
        return paper(*options.paper)
    if options.link:
        make_link(*options.link)
    try:
        compare(options)
    finally:
        if options.link:
            remove_link()


if __name__ == "__main__":
    main()
