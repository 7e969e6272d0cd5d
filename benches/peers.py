#!/usr/bin/env python3
"""Times the example `workload` and other engines in turn, a short stretch of each after the other.

    cargo build --release --example workload
    python3 benches/peers.py -- --model resnet50 --batch 1 --threads 2
    python3 benches/peers.py --engines pytorch -- --model resnet18 --batch 16 --mode train
    python3 benches/peers.py --engines pytorch -- --op "conv2d in=64 out=64 k=3 p=1" --batch 16 --size 56 --mode backward

What follows `--` goes to `workload`, and says what the others run. For each engine it prints its time divided by ours, pair by pair: the median,
and the quartiles in brackets; above 1, ours is faster. Machines change their speed within seconds, and stretches that lie side by side share
it: believe the ratio, not the times.

Engines: pytorch (channels-last), pytorch-nchw, both with glibc's allocator set to keep its memory; pytorch-default (channels-last, the allocator
as it is); onnxruntime and openvino for inference, in f32. Needs: pip install torch torchvision timm onnx onnxscript onnxruntime openvino.
"""
import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "10000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000"}


def work_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--op")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int)
    parser.add_argument("--mode", default="infer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser


class Program:
    """A program that prints `ready`, after other lines perhaps, then for each line `N` the seconds that N steps took, and at the end its peak memory."""

    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        self.greeting = []
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
            self.greeting.append(line.strip())
        sys.exit(f"peers.py: ended before it was ready: {shlex.join(command)}")

    def run(self, steps):
        time.sleep(0.1)  # Threads of the other programs stop waiting for work.
        print(steps, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def finish(self):
        self.process.stdin.close()
        return json.loads(self.process.stdout.readline())["peak_rss_mib"]


def compare(options, work):
    programs = {"convnet": Program([options.workload, *work])}
    for engine in options.engines.split(","):
        environment = KEEP_MEMORY if engine in ("pytorch", "pytorch-nchw") else {}
        programs[engine] = Program([sys.executable, __file__, "--serve", engine, "--", *work], environment)
    steps = {name: max(1, round(options.stretch / min(program.run(1) for _ in range(3)))) for name, program in programs.items()}
    times = {name: [] for name in programs}
    for pair in range(options.pairs):
        for name in list(programs) if pair % 2 == 0 else reversed(programs):
            times[name].append(programs[name].run(steps[name]) / steps[name] * 1e3)
    for name, program in programs.items():
        row = f"{name:16} {statistics.median(times[name]):10.3f} ms  {program.finish():8.0f} MiB"
        if name != "convnet":
            first, median, third = statistics.quantiles([b / a for a, b in zip(times["convnet"], times[name])], n=4)
            row += f"  {median:.2f} [{first:.2f}, {third:.2f}]"
        print(row, flush=True)


def build(name):
    """The network, the shape of its input, and its classes."""
    import timm
    import torch.nn.functional as functional
    import torchvision
    from torch import nn

    if name == "lenet5":
        features = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*features, nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)), (1, 28, 28), 10
    if name.startswith("cifar_resnet"):

        class Block(nn.Module):
            def __init__(self, inputs, outputs, stride):
                super().__init__()
                self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
                self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
                self.bn1, self.bn2, self.stride = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs), stride

            def forward(self, x):
                y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
                if self.stride > 1:  # the paper's shortcut without parameters
                    added = y.shape[1] - x.shape[1]
                    x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added - added // 2))
                return functional.relu(y + x)

        blocks = (int(name.removeprefix("cifar_resnet")) - 2) // 6
        layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for inputs, outputs in (16, 16), (16, 32), (32, 64):
            layers += [Block(inputs if i == 0 else outputs, outputs, 2 if i == 0 and outputs > inputs else 1) for i in range(blocks)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), (3, 32, 32), 10
    if hasattr(torchvision.models, name):
        extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return getattr(torchvision.models, name)(weights=None, **extra), (3, 224, 224), 1000
    return timm.create_model(name), (3, 224, 224), 1000


def torch_step(work, layout):
    import torch

    torch.set_num_threads(work.threads)
    if work.op:
        return torch_operation(work, layout)
    network, shape, classes = build(work.model)
    if work.size and shape[1] == 224:
        shape = (3, work.size, work.size)
    network = network.to(memory_format=layout).train(work.mode == "train")
    x = torch.randn(work.batch, *shape).contiguous(memory_format=layout)
    labels = torch.arange(work.batch) * 7919 % classes
    return network_step(network, work.mode, lambda: (x, labels))


def network_step(network, mode, batch):
    """A step of a network on what `batch` returns: images in its layout, and labels."""
    import torch

    if mode == "infer":

        def infer():
            images, _ = batch()
            with torch.inference_mode():
                network(images)

        return infer
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)

    def train():
        images, labels = batch()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return train


def torch_operation(work, layout):
    import torch
    import torch.nn.functional as functional

    name, *pairs = work.op.split()
    get = {key: int(value) for key, value in (pair.split("=") for pair in pairs)}
    channels, size = get.get("in", get.get("c")), work.size or 224
    inputs = [torch.randn(work.batch, channels, size, size).contiguous(memory_format=layout) for _ in range(2 if name == "add" else 1)]
    stride, padding = get.get("s", 1), get.get("p", 0)
    if name == "conv2d":
        groups, kernel = get.get("g", 1), get["k"]
        inputs.append((torch.randn(get["out"], channels // groups, kernel, kernel) * 0.05).contiguous(memory_format=layout))
        run = lambda x, w: functional.conv2d(x, w, None, stride, padding, 1, groups)
    elif name == "max_pool2d":
        run = lambda x: functional.max_pool2d(x, get["k"], get.get("s", get["k"]), padding)
    elif name == "batch_norm":
        inputs += [torch.ones(channels), torch.zeros(channels)]
        run = lambda x, weight, bias: functional.batch_norm(x, None, None, weight, bias, training=True)
    else:
        run = {"relu": functional.relu, "add": torch.add}[name]
    if work.mode == "forward":

        def forward():
            with torch.inference_mode():
                run(*inputs)

        return forward
    # The first layer's input needs no gradient.
    wanted = [x.requires_grad_() for x in inputs if not (x is inputs[0] and channels == 3)]
    y = run(*inputs)
    gradient = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, wanted, gradient, retain_graph=True)


def exported_step(work, engine):
    import numpy
    import torch

    network, shape, _ = build(work.model)
    network = network.eval()
    shape = (work.batch, 3, work.size, work.size) if work.size and shape[1] == 224 else (work.batch, *shape)
    x = torch.randn(shape)
    if engine == "openvino":
        import openvino

        converted = openvino.convert_model(network, example_input=x, input=list(shape))
        settings = {"INFERENCE_NUM_THREADS": work.threads, "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
        tensor = openvino.Tensor(x.numpy())
        return lambda: request.infer([tensor])
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.onnx")
        torch.onnx.export(network, (x,), path, input_names=["x"], dynamo=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = work.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"x": numpy.ascontiguousarray(x.numpy())}
    return lambda: session.run(None, feed)


def answer(step):
    """Makes as many steps as each line of the standard input says, and prints their seconds."""
    for _ in range(3):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(time.perf_counter() - start, flush=True)


def serve(engine, work):
    import torch

    if engine.startswith("pytorch"):
        step = torch_step(work, torch.contiguous_format if engine == "pytorch-nchw" else torch.channels_last)
    elif engine in ("onnxruntime", "openvino"):
        if work.op or work.mode != "infer":
            sys.exit(f"peers.py: {engine} runs inference of models only")
        step = exported_step(work, engine)
    else:
        sys.exit(f"peers.py: no engine {engine}")
    answer(step)
    print(json.dumps({"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--stretch", type=float, default=0.4, help="seconds of each stretch, about")
    parser.add_argument("--engines", default="pytorch,onnxruntime,openvino")
    parser.add_argument("--workload", default="target/release/examples/workload")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("work", nargs="+", help="options of workload, after --")
    options = parser.parse_args()
    known = work_parser().parse_args(options.work)
    if options.serve:
        serve(options.serve, known)
    else:
        compare(options, options.work)


if __name__ == "__main__":
    main()
