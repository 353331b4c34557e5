"""What tests of the panel share: the stand-in with the module, a scan, a worker that is made up.

The worker is a small program without torch that speaks the engine's protocol, run by a real
QProcess; ``mode`` says how it behaves.
"""

import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import qt  # noqa: E402
import slicer  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.job import RunState  # noqa: E402
from TomoSegPanel.worker import WorkerProcess  # noqa: E402

__all__ = ["choose_model", "host", "make_segment", "qt", "reopen", "run", "slicer"]

WORKER = """
import json, os, sys
sys.path[:0] = [{root!r}, {panel!r}]
import numpy as np
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd
mode = {mode!r}
job = json.load(open(sys.argv[1], encoding="utf-8"))
def say(**event):
    print(json.dumps(event), flush=True)
say(event="started", kind="run", pid=os.getpid(), version="0", protocol=1)
image = readNrrd(next(iter(job["channels"].values())))
scale = 2 if mode == "strong" else 1
bright = np.where(image > 200, np.float32(2), np.float32(0.1) * (image > 0)) * scale
bright = bright.astype(np.float32)
os.makedirs(job["output"])
labels = [dict(name="bright blob", value=1, color=[0.9, 0.3, 0.2], terminology="")]
record = dict(
    job=dict(job, method=job.get("method") or "tonno", directions="fibonacci:32", cam=None),
    inputs=dict((name, dict(hash="0" * 64, path=p)) for name, p in job["channels"].items()),
    directions=dict(name="fibonacci:32", vectors=[[0, 0, 1]] * 32),
    environment=dict(device="cpu", device_name="", threads=2, batch_size=8),
    created_at="2026-01-01T00:00:00+00:00",
)
if mode == "segmenter":
    edema = "Segmentation category and type - 3D Slicer General Anatomy list"
    edema += "~SCT^49755003^Morphologically Altered Structure~SCT^79654002^Edema~^^"
    edema += "~Anatomic codes - DICOM master list~^^~^^"
    labels = [
        dict(name="core | inner", value=1, color=[1.0, 0.0, 0.0], terminology=""),
        dict(name="edema", value=2, color=[0.0, 1.0, 0.0], terminology=edema),
        dict(name="absent", value=7, color=[0.0, 0.0, 1.0], terminology=""),
    ]
    found = np.where(image > 200, 1, 0).astype(np.uint8)
    found[:, :11][found[:, :11] == 1] = 2
    writeNrrd(os.path.join(job["output"], "mask.seg.nrrd"), found, np.eye(4))
    record["job"].update(method=None, directions=None)
    record["task"] = "segmentation"
    part = dict(ijk=[12, 11, 9], lps_mm=[-25.0, -27.0, 28.0], volume_ml=1.2, probability=0.9)
    record["segments"] = [dict(value=1, name="core | inner", parts=[part])]
else:
    writeNrrd(os.path.join(job["output"], "heatmap.nrrd"), bright, np.eye(4))
    writeNrrd(os.path.join(job["output"], "agreement.nrrd"), bright / bright.max(), np.eye(4))
    peak = [float(v) for v in np.argwhere(bright == bright.max())[0][::-1]]
    record["heatmap"] = dict(
        minimum=0.0, maximum=float(bright.max()), mean=0.1,
        peaks=[dict(ijk=peak, lps_mm=[-10.0, 20.0, 30.0], value=float(bright.max()))],
    )
    record["mask"] = dict(threshold=0.8, voxels=1, volume_ml=1.0, components=1)
record["model"] = dict(name=job["model"], version="1.0.0", hash="1" * 64, simulated=True,
                       labels=labels)
json.dump(record, open(os.path.join(job["output"], "result.json"), "w"))
say(event="result", path=job["output"], data=dict())
"""


class NoProbe:
    """Stands for `dependencies.Probe`: everything is there."""

    def __init__(self, onAnswer):
        self._onAnswer = onAnswer

    def start(self):
        self._onAnswer({"torch": {"version": "2"}, "devices": [{"name": "cpu", "works": True}]})

    def abandon(self):
        pass


@pytest.fixture
def widget():
    """The panel with an empty scene and a probe that finds everything."""
    host.errors.clear()
    host.close_scene()
    panelWidget = host.select("TomoSeg")
    computing = panelWidget.panel.computing
    probe = computing._probe
    probe.abandon()
    computing._probe = NoProbe(computing._onAnswer)
    computing.probe()
    host.process()
    yield panelWidget
    panelWidget.panel.runs.queue.abandon()
    # The panel outlives this test: what was made up must not be believed by the next one.
    computing._probe, computing.answer = probe, None
    host.select("TomoSeg")
    host.close_scene()
    host.process(0.05)
    assert host.errors == []


@pytest.fixture
def worker(widget, tmp_path):
    """Makes the panel's workers do as a mode says."""
    before = widget.panel.runs._makeWorker

    def choose(mode):
        script = tmp_path / "worker.py"
        source = WORKER.format(root=str(ROOT), panel=str(ROOT / "TomoSeg"), mode=mode)
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        widget.panel.runs._makeWorker = lambda document, onEvent: WorkerProcess(
            document, onEvent, [sys.executable, str(script), document]
        )

    yield choose
    widget.panel.runs._makeWorker = before


@pytest.fixture
def volume(widget):
    """A volume with a bright blob, chosen in the panel, with the model that finds it."""
    voxels = np.zeros((20, 24, 28), np.int16)
    voxels[2:-2, 2:-2, 2:-2] = 100
    voxels[8:12, 9:14, 10:16] = 300
    node = slicer.util.addVolumeFromArray(voxels, name="Köpf 1")
    node.SetSpacing(2.0, 2.5, 3.0)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    widget.ui.inputSelector.setCurrentNode(node)
    choose_model(widget, "tiny-blob")
    host.process()
    return node


@pytest.fixture
def segmenter(widget, monkeypatch):
    """Lets the model be one that makes segmentations."""
    monkeypatch.setattr(widget.panel.models.card("tiny-blob"), "task", "segmentation")


def choose_model(widget, name):
    """Click on a model in the list."""
    models = widget.ui.modelListWidget
    for row in range(models.count):
        if models.item(row).data(qt.Qt.UserRole) == name:
            models.setCurrentItem(models.item(row))
            return
    raise AssertionError(f"{name} is not in the list")


def run(widget, seconds=60.0):
    """Click on Run and wait for the end; the result that is shown then."""
    widget.ui.runButton.click()
    current = widget.panel.runs.queue.current
    assert current is not None
    assert host.wait_for(lambda: current.state.isOver, seconds), current.state
    assert current.state is RunState.FINISHED, current.report()
    return widget._parameterNode.heatmap


def make_segment(widget):
    """Click on Make segment and wait; the segmentation and the new segment's ID."""
    widget.ui.makeSegmentButton.click()
    assert host.wait_for(lambda: widget.ui.makeSegmentButton.enabled)
    segmentation = widget._parameterNode.segmentation
    return segmentation, segmentation.GetSegmentation().GetSegmentIDs()[-1]


def reopen(path):
    """Save the scene, close it and open it again."""
    assert slicer.util.saveScene(str(path))
    host.close_scene()
    slicer.util.loadScene(str(path))
    host.process(0.1)
