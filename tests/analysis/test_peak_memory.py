from pathlib import Path

import pytest
import torch

from pixelclip.analysis.peak_memory import read_peak_memory, reset_peak_memory

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_only_what_came_after_the_reset_counts():
    # Large, beside what a system takes back from a process, or a collection of garbage sets free.
    torch.ones(600 * MIB // 4)
    reset_peak_memory(CPU)
    before = read_peak_memory(CPU)
    torch.ones(300 * MIB // 4)
    grown = read_peak_memory(CPU) - before
    assert 150 * MIB < grown < 450 * MIB


def test_without_proc_it_is_the_peak_of_the_process(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda _: (_ for _ in ()).throw(OSError()))
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError()))
    reset_peak_memory(CPU)
    assert read_peak_memory(CPU) > 50 * MIB
