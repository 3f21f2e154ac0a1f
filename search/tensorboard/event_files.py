"""TensorBoard's event files, written synchronously: what was flushed, a reader sees.

tensorboardX's own `SummaryWriter` starts a thread and a pipe for each run, its `flush()` does not
wait for them, and the writer below it waits for the disk (3 ms an epoch): these files can be made
again at any time, so the system's memory will do. No TensorFlow is loaded.
"""

import os
import platform
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tensorboardX import summary
from tensorboardX.proto import api_pb2
from tensorboardX.proto.attr_value_pb2 import AttrValue
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.graph_pb2 import GraphDef
from tensorboardX.proto.node_def_pb2 import NodeDef
from tensorboardX.proto.plugin_hparams_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.record_writer import masked_crc32c

from pawtune.data_pipeline.images.pictures import Pixels, encode_jpeg
from pawtune.models.families.family import Layer

# Field 7 of HParamInfo, `differs`, set: tensorboardX's copy of the format does not have it yet.
DIFFERS = b"\x38\x01"
Value = str | int | float | bool
Layout = Mapping[str, Mapping[str, Sequence[str]]]  # category -> chart -> regular expressions


class EventFile:
    """One event file in a folder; others there are left alone.

    Args:
        folder: A run of TensorBoard's; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Readers go through a folder's files in the order of their names, and never back.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9}.{platform.node()}.{now}"
        self._stream = (folder / name).open("wb")
        self._write(Event(wall_time=now / 1e9, file_version="brain.Event:2"))

    def add_scalars(self, values: Mapping[str, float], step: int, wall_time: float) -> None:
        """Adds a point to each curve, as one event."""
        found = [Summary.Value(tag=tag, simple_value=float(v)) for tag, v in values.items()]
        self._add(Summary(value=found), step, wall_time)

    def add_image(self, tag: str, pixels: Pixels, step: int = 0) -> None:
        """Adds a picture: (H, W, 3) uint8, kept as JPEG."""
        height, width, _ = pixels.shape
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encode_jpeg(pixels)
        )
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def add_text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Adds a text in Markdown."""
        self._add(summary.text(tag, markdown), step)

    def add_layout(self, layout: Layout) -> None:
        """Says which curves share a chart in the custom-scalars tab."""
        given = {
            category: {title: ["Multiline", list(tags)] for title, tags in charts.items()}
            for category, charts in layout.items()
        }
        self._add(summary.custom_scalars(given), 0)

    def add_columns(
        self,
        parameters: Mapping[str, type],
        metrics: Mapping[str, str],
        shown_first: Collection[str] = (),
        discrete: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Says which columns the HParams table has.

        Args:
            parameters: Names and their types: str, bool, or a number's.
            metrics: Tags of curves, whose last values are shown, and their headings.
            shown_first: Parameters that matter most.
            discrete: Words that a parameter takes: the table can then be filtered by them.
        """

        # TensorBoard shows the first few parameters until others are ticked: by name those that are
        # marked as different, then the rest.
        def describe(name: str, kind: type) -> api_pb2.HParamInfo:
            info = api_pb2.HParamInfo(name=name, type=types.get(kind, api_pb2.DATA_TYPE_FLOAT64))
            for word in (discrete or {}).get(name, ()):
                info.domain_discrete.values.add(string_value=word)
            differs = DIFFERS if name in shown_first else b""
            return api_pb2.HParamInfo.FromString(info.SerializeToString() + differs)

        types = {str: api_pb2.DATA_TYPE_STRING, bool: api_pb2.DATA_TYPE_BOOL}
        experiment = api_pb2.Experiment(
            hparam_infos=[describe(name, kind) for name, kind in parameters.items()],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=heading)
                for tag, heading in metrics.items()
            ],
        )
        self._add_hparams("_hparams_/experiment", HParamsPluginData(experiment=experiment))

    def start_session(self, params: Mapping[str, Value], wall_time: float) -> None:
        """Makes this run a line of the HParams table."""
        session = SessionStartInfo(start_time_secs=wall_time)
        for name, value in params.items():
            if isinstance(value, bool):
                session.hparams[name].bool_value = value
            elif isinstance(value, str):
                session.hparams[name].string_value = value
            else:
                session.hparams[name].number_value = float(value)
        data = HParamsPluginData(session_start_info=session)
        self._add_hparams("_hparams_/session_start_info", data)

    def end_session(self, succeeded: bool, wall_time: float) -> None:
        """Says how the run ended; TensorBoard knows success and failure only."""
        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=wall_time)
        self._add_hparams("_hparams_/session_end_info", HParamsPluginData(session_end_info=end))

    def add_graph(self, layers: Sequence[Layer]) -> None:
        """Adds a model's layers, one after the other, to the graph tab."""
        nodes, before = [], ""
        for layer in layers:
            shape = " x ".join(map(str, layer.shape))
            attributes = {"output": shape, "weights": f"{layer.weights:,}", "detail": layer.detail}
            nodes.append(
                NodeDef(
                    name=layer.name,
                    op=layer.kind,
                    input=[before] if before else [],
                    attr={key: AttrValue(s=text.encode()) for key, text in attributes.items()},
                )
            )
            before = layer.name
        graph = GraphDef(node=nodes).SerializeToString()
        self._write(Event(wall_time=time.time(), graph_def=graph))

    def restart(self, step: int) -> None:
        """Tells readers that are open that what they hold from `step` on comes again."""
        log = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=step, session_log=log))

    def flush(self) -> None:
        """Lets readers see everything."""
        self._stream.flush()

    def close(self) -> None:
        """Lets readers see everything, and ends the file."""
        self._stream.close()

    def _add_hparams(self, tag: str, data: HParamsPluginData) -> None:
        owner = SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=owner))
        self._add(Summary(value=[value]), 0)

    def _add(self, content: Summary, step: int, wall_time: float | None = None) -> None:
        now = time.time() if wall_time is None else wall_time
        self._write(Event(wall_time=now, step=step, summary=content))

    def _write(self, event: Event) -> None:
        """One record: length, its checksum, content, its checksum."""
        content = event.SerializeToString()
        header = struct.pack("<Q", len(content))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (header, content))
        self._stream.write(header + next(sums) + content + next(sums))


def remove_event_files(folder: Path) -> bool:
    """Removes a run's event files; says whether there were any."""
    found = list(folder.glob("events.out.tfevents.*"))
    for file in found:
        os.unlink(file)
    return bool(found)
