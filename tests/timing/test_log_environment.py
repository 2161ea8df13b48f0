"""The machine of a run, from the many faces of nvidia-smi and of the versions' lines."""

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H200",
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA GH200 480GB",
        "NVIDIA L40S",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA RTX 6000 Ada Gene...",
    ],
)
@pytest.mark.parametrize(
    "cell",
    [
        "{index:>4}  {name:<28}  On  ",
        "{index:>4}  {name:<28} Off ",
        "{index:>4}  {name:<28}WDDM  ",
        "{index:>4}  {name:<28} N/A ",
    ],
)
def test_gpus_are_counted_and_named(read, pieces, name, cell):
    run = read(pieces.log(environment=pieces.smi([name] * 3, cell)))
    assert (run.gpu, run.gpus, run.driver, run.date) == (name, 3, "570.148.08", "2025-10-04T06:07:53")


def test_the_older_and_narrower_table(read, pieces):
    row = "|   0  Tesla V100-SXM2...  On   | 00000000:06:00.0 Off |                    0 |\n"
    run = read(pieces.log(environment="nvidia-smi:\n" + row + row.replace(":06:", ":07:").replace("  0  T", "  1  T")))
    assert (run.gpu, run.gpus) == ("Tesla V100-SXM2...", 2)


def test_process_tables_mig_rows_and_repeated_tables_do_not_count(read, pieces):
    table = pieces.smi(["NVIDIA H100 80GB HBM3"] * 2)
    tail = (
        "| MIG devices:                                                                            |\n"
        "|  0    7   0   0  |              12MiB / 9856MiB  | 16      0 |  1   0    0    0    0 |\n"
        "| Processes:                                                                              |\n"
        "|    0   N/A  N/A            1234      C   /usr/bin/python3                       1506MiB |\n"
    )
    run = read(pieces.log(environment=table + tail + table))
    assert run.gpus == 2


def test_two_kinds_of_gpu_are_named_and_noted(read, pieces, said):
    run = read(pieces.log(environment=pieces.smi(["NVIDIA H100 80GB HBM3", "NVIDIA H200"])))
    assert run.gpu == "NVIDIA H100 80GB HBM3 + NVIDIA H200"
    assert said(run, "not all of one kind") == run.env_line["gpu"]


def test_the_short_list_of_gpus(read, pieces):
    text = "GPU 0: NVIDIA H200 (UUID: GPU-0a)\nGPU 1: NVIDIA H200 (UUID: GPU-0b)\n"
    run = read(pieces.log(environment=text))
    assert (run.gpu, run.gpus) == ("NVIDIA H200", 2)


def test_without_a_table_the_scripts_own_words_are_kept_apart(read, pieces):
    versions = "Running PyTorch 2.11.0+cu128 compiled for CUDA 12.8"
    for rest in (
        " on NVIDIA H100 80GB HBM3 with world_size 8\n",
        "\nRunning on device_name=NVIDIA H100 80GB HBM3 with world_size=8\n",
    ):
        run = read(pieces.log(environment=versions + rest))
        assert (run.torch, run.cuda, run.device, run.world_size) == ("2.11.0+cu128", "12.8", "NVIDIA H100 80GB HBM3", 8)
        assert (run.gpu, run.gpus) == (None, None)


@pytest.mark.parametrize("text", ["nvidia-smi: not available\n", "sh: nvidia-smi: command not found\n", ""])
def test_no_nvidia_smi_is_no_gpus(read, pieces, text):
    run = read(pieces.log(environment="Running PyTorch 2.13.0 compiled for CUDA None\n" + text))
    assert (run.gpu, run.gpus, run.driver, run.date, run.cuda) == (None, None, None, None, None)


@pytest.mark.parametrize("version", ["2.4.1+cu121", "2.7.0a0+79aa17489c.nv25.04", "2.6.0.dev20241203+cu124"])
def test_versions_in_either_spelling(read, pieces, version):
    text = "Running python 3.10.12 (main, Sep 11 2024, 15:47:36) [GCC 11.4.0]\n"
    text += f"Running pytorch {version} compiled for CUDA 12.4\n"
    run = read(pieces.log(environment=text))
    assert (run.python, run.torch, run.cuda) == ("3.10.12", version, "12.4")


def test_dates(read, pieces, said):
    stamp = read(pieces.log(environment="Run UTC timestamp=2026-05-25T02:45:21Z\n" + pieces.environment()))
    assert stamp.date == "2026-05-25T02:45:21Z"
    zone = read(pieces.log(environment="Thu Oct 10 23:58:24 UTC 2024\n"))
    assert zone.date == "2024-10-10T23:58:24"
    never = read(pieces.log(environment="Thu Feb 31 23:58:24 2024\n"))
    assert never.date is None and said(never, "date")


def test_facts_in_the_source_or_among_the_metrics_do_not_count(read, pieces):
    source = pieces.source + '"""\nRunning PyTorch 1.0 compiled for CUDA 1\nseed=5\noverride a=b\n"""\n'
    run = read(pieces.log(source=source, metrics=pieces.metrics() + "seed=7\noverride c=d\n"))
    assert (run.torch, run.seed, run.overrides) == ("2.9.0.dev20250713+cu126", None, {})


def test_fields_are_short_and_harmless(read, pieces):
    hostile = "\x1b]0;pwned\x07\u202e<script>" + "x" * 500
    text = f"Running PyTorch 2.9.0{hostile} compiled for CUDA 12.6\nseed={hostile}\noverride name={hostile}\n"
    run = read(pieces.log(environment=text))
    for value in (run.torch, run.seed, run.overrides["name"]):
        assert value.isprintable() and len(value) <= 200
