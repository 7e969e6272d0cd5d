#!/usr/bin/env python3
"""Times the loading of pictures by the example `workload` and by torchvision in turn, a short stretch of each after the other.

    cargo build --release --example workload
    python3 benches/data.py --make-photos photos ../shared/data/pictures     # JPEG files of 500×375
    python3 benches/data.py -- --load decode --data photos
    python3 benches/data.py -- --load jitter-hue --data photos --batch 16
    python3 benches/data.py -- --load cifar --data cifar10/train --batch 128
    python3 benches/data.py --engines alone -- --load center --data photos --batch 16 --workers 1 --model resnet18 --threads 2
    python3 benches/data.py --engines pytorch:0,pytorch:1,pytorch:2 -- \\
        --load cifar --data cifar10/train --batch 128 --workers 1 --model cifar_resnet20 --mode train --threads 2

What follows `--` goes to `workload`; `--load` of its `--help` says what is done with the pictures. `--threads` is 1 unless it is given. For each
program it prints the least and the median time of a picture, the pictures a second by the median, and for the others their time divided by ours:
the ratio of the least times, and the median and the quartiles of the pairs' ratios. For decoding it compares the pixels first.

Engines: pytorch (torchvision's transforms of PIL images and PyTorch's loader, with as many workers as ours), pytorch:N (with N workers), alone (our
network on one batch that stays the same). Needs: pip install torch torchvision timm pillow.
"""
import argparse
import io
import os
import pathlib
import statistics
import sys
import zlib

from peers import KEEP_MEMORY, Program, answer, build, network_step

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SAMPLES = 1 << 17


def work_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--load", required=True, choices=["decode", "crop", "jitter", "jitter-hue", "center", "cifar"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--model")
    parser.add_argument("--mode", default="infer")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def make_photos(folder, pictures):
    """Writes JPEG files of 500×375 pixels, the usual size in ImageNet, cut out of larger pictures."""
    from PIL import Image

    names = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    for index in range(48):
        name = names[index % len(names)]
        picture = Image.open(pathlib.Path(pictures) / name).convert("RGB")
        # Windows of several sizes and places, of the ratio 4 to 3.
        width = min(picture.width, picture.height * 4 / 3) * (1 - index // 4 / 40)
        left, top = (picture.width - width) * (index % 5) / 4, (picture.height - width * 3 / 4) * (index % 7) / 6
        window = picture.resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + width, top + width * 3 / 4))
        path = pathlib.Path(folder) / name.split(".")[0] / f"{index:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        window.save(path, quality=94)
    sizes = [path.stat().st_size for path in pathlib.Path(folder).rglob("*.jpg")]
    print(f"{len(sizes)} files of {sum(sizes) / len(sizes) / 1000:.0f} kB on average")


def compare(options, given):
    work = work_parser().parse_args(given)
    ours = [options.workload, *given] + ([] if "--threads" in given else ["--threads", "1"])
    programs = {"convnet": Program(ours)}
    for engine in options.engines.split(","):
        if engine == "alone":
            alone = ["--model", work.model, "--mode", work.mode, "--batch", str(work.batch), "--threads", str(work.threads)]
            programs[engine] = Program([options.workload, *alone])
        else:
            programs[engine] = Program([sys.executable, __file__, "--serve", engine, "--", *given], KEEP_MEMORY)
    if work.load == "decode":
        checksums = {name: program.greeting for name, program in programs.items()}
        print(f"the same pixels: {checksums['convnet'][0]}" if len(set(map(str, checksums.values()))) == 1 else f"OTHER PIXELS: {checksums}")
    steps = {name: max(1, round(options.stretch / min(program.run(1) for _ in range(3)))) for name, program in programs.items()}
    times = {name: [] for name in programs}
    for pair in range(options.pairs):
        for name in list(programs) if pair % 2 == 0 else reversed(programs):
            times[name].append(programs[name].run(steps[name]) / steps[name] / work.batch)
    for name, program in programs.items():
        least, median = min(times[name]), statistics.median(times[name])
        row = f"{name:12} {least * 1e3:9.4f} {median * 1e3:9.4f} ms a picture {1 / median:9.0f} a second"
        if work.load == "cifar" and work.model:
            row += f"  {median * 50000:6.1f} s an epoch"
        if name != "convnet":
            first, middle, third = statistics.quantiles([b / a for a, b in zip(times["convnet"], times[name])], n=4)
            row += f"  least {least / min(times['convnet']):.2f}, pairs {middle:.2f} [{first:.2f}, {third:.2f}]"
        print(row, flush=True)
        program.finish()


def decoding(folder):
    """A step that decodes one file after the other; prints the checksum of all pixels."""
    from PIL import Image

    classes = sorted(path for path in pathlib.Path(folder).iterdir() if path.is_dir())
    files = [path.read_bytes() for folder in classes for path in sorted(folder.glob("*.jpg"))]
    checksum, turn = 0, -1
    for file in files:
        checksum = zlib.crc32(Image.open(io.BytesIO(file)).convert("RGB").tobytes(), checksum)
    print(f"pixels {checksum:08x}")

    def step():
        nonlocal turn
        turn = (turn + 1) % len(files)
        Image.open(io.BytesIO(files[turn])).convert("RGB")

    return step


def batches(work, workers):
    """The batches of a folder, again and again."""
    import torch
    from torchvision import datasets, transforms

    crop = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    steps = {
        "crop": crop,
        "jitter": [*crop, transforms.ColorJitter(0.4, 0.4, 0.4)],
        "jitter-hue": [*crop, transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)],
        "center": [transforms.Resize(256), transforms.CenterCrop(224)],
        "cifar": [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()],
    }
    finish = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    folder = datasets.ImageFolder(work.data, transforms.Compose([*steps[work.load], *finish]))
    repeated = torch.utils.data.Subset(folder, [index % len(folder) for index in range(SAMPLES)])
    loader = torch.utils.data.DataLoader(repeated, work.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def serve(engine, work):
    if work.load == "decode":
        step = decoding(work.data)
    else:
        import torch

        torch.set_num_threads(work.threads)
        workers = int(engine.partition(":")[2] or work.workers)
        loaded = batches(work, workers)
        step = loaded_step(work, loaded) if work.model else lambda: next(loaded)
    answer(step)
    print('{"peak_rss_mib": null}', flush=True)
    os._exit(0)  # Without waiting for the loader's processes.


def loaded_step(work, loaded):
    """A step of the network on the next batch."""
    import torch

    network, _, _ = build(work.model)
    network = network.to(memory_format=torch.channels_last).train(work.mode == "train")

    def following():
        images, labels = next(loaded)
        return images.contiguous(memory_format=torch.channels_last), labels

    return network_step(network, work.mode, following)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--stretch", type=float, default=0.4, help="seconds of each stretch, about")
    parser.add_argument("--engines", default="pytorch")
    parser.add_argument("--workload", default="target/release/examples/workload")
    parser.add_argument("--make-photos", nargs=2, metavar=("TO", "FROM"))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("work", nargs="*", help="options of workload, after --")
    options = parser.parse_args()
    if options.make_photos:
        make_photos(*options.make_photos)
    elif options.serve:
        serve(options.serve, work_parser().parse_args(options.work))
    else:
        compare(options, options.work)


if __name__ == "__main__":
    main()
