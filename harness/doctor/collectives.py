"""How fast the ranks of this machine talk to each other. Run under torchrun; rank 0 prints one JSON object a line.

Bandwidths are those of nccl-tests: the algorithm's is the size of the whole buffer over time; the bus's is corrected by
2 (n - 1) / n for all_reduce and (n - 1) / n for the others, so that it compares across numbers of ranks.
"""

import json
import os
import time

import torch
import torch.distributed as dist

# Bytes of what the records send, whole and in bf16: 768 wide, 3072 in the MLP, a vocabulary of 50,304.
MESSAGES = {
    "gate": 1 << 13,
    "matrix": 2 * 768 * 3072,
    "DDP bucket": 25 << 20,
    "embedding": 2 * 50304 * 768,
}
HIDDEN = "DDP bucket"  # what is sent while matrices are multiplied
BUCKETS = 8  # so many of them
BUDGET_S = 0.2  # for each collective and size, about


def collectives(whole: torch.Tensor, part: torch.Tensor) -> dict:
    """The three that the records use, as functions of no argument, with their bus factor times n."""
    size = dist.get_world_size()
    return {
        "all_reduce": (lambda: dist.all_reduce(whole, op=dist.ReduceOp.AVG), 2 * (size - 1)),
        "reduce_scatter": (lambda: dist.reduce_scatter_tensor(part, whole, op=dist.ReduceOp.AVG), size - 1),
        "all_gather": (lambda: dist.all_gather_into_tensor(whole, part), size - 1),
    }


def overlap(message: str, device, synchronise) -> dict:
    """How much of the time of several all_reduces is saved by sending them behind matmuls on the same device: one after
    the other as a backward pass does, each before as many of a record's MLP's as take about as long as it. What the
    matmuls lose by it counts: NCCL's kernels run on the same multiprocessors and memory."""
    buckets = [torch.zeros(MESSAGES[message] // 2, dtype=torch.bfloat16, device=device) for _ in range(BUCKETS)]
    tokens, width = (16384, 768) if device.type == "cuda" else (256, 64)
    activations = torch.ones(tokens, width, dtype=torch.bfloat16, device=device)
    weight = torch.ones(width, 4 * width, dtype=torch.bfloat16, device=device)

    def send():
        return [dist.all_reduce(bucket, async_op=True) for bucket in buckets]

    def finish(sent: list):
        for work in sent:
            work.wait()

    communication = seconds_per_call(lambda: finish(send()), synchronise, device)
    once = seconds_per_call(lambda: activations @ weight, synchronise, device)
    repeats = max(1, round(communication / BUCKETS / once))

    def multiply():
        for _ in range(repeats):
            activations @ weight

    def compute():
        for _ in buckets:
            multiply()

    def both():
        sent = []
        for bucket in buckets:
            sent.append(dist.all_reduce(bucket, async_op=True))
            multiply()
        finish(sent)

    computation, together = (seconds_per_call(call, synchronise, device) for call in (compute, both))
    hidden = (computation + communication - together) / min(computation, communication)
    times = {"compute_ms": computation, "communication_ms": communication, "together_ms": together}
    return {name: 1e3 * seconds for name, seconds in times.items()} | {"hidden": min(1.0, max(0.0, hidden))}


def seconds_per_call(call, synchronise, device) -> float:
    """Mean time of a call once warm, the slowest rank's."""
    for _ in range(2):
        call()
    once = _agreed(_timed(call, 2, synchronise), device)
    return _agreed(_timed(call, max(3, min(100, int(BUDGET_S / once))), synchronise), device)


def _timed(call, times: int, synchronise) -> float:
    dist.barrier()
    synchronise()
    began = time.perf_counter()
    for _ in range(times):
        call()
    synchronise()
    return (time.perf_counter() - began) / times


def _agreed(seconds: float, device) -> float:
    """The largest of the ranks' times, so that all go on with the same number of calls."""
    slowest = torch.tensor([seconds], dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return slowest.item()


def main():
    """Measure every collective at every size and print what rank 0 agrees on."""
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    synchronise = torch.cuda.synchronize if cuda else lambda: None
    size = dist.get_world_size()
    common = {"ranks": size, "backend": dist.get_backend()}
    for message, number_of_bytes in MESSAGES.items():
        whole = torch.zeros(number_of_bytes // 2, dtype=torch.bfloat16, device=device)
        part = torch.zeros(whole.numel() // size, dtype=torch.bfloat16, device=device)
        for name, (call, factor) in collectives(whole, part).items():
            seconds = seconds_per_call(call, synchronise, device)
            algorithm = number_of_bytes / seconds / 1e9
            figures = {"ms": 1e3 * seconds, "algorithm_gb_s": algorithm, "bus_gb_s": algorithm * factor / size}
            if dist.get_rank() == 0:
                print(
                    json.dumps({"name": name, "message": message, "bytes": number_of_bytes, **common, **figures}),
                    flush=True,
                )
    figures, sent = overlap(HIDDEN, device, synchronise), BUCKETS * MESSAGES[HIDDEN]
    if dist.get_rank() == 0:
        print(
            json.dumps({"name": "overlap", "message": f"{BUCKETS} {HIDDEN}s", "bytes": sent, **common, **figures}),
            flush=True,
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
