"""TensorBoard's event files, written synchronously: what was flushed, a reader sees.

TensorBoard's own `Writer` starts a thread for each run, which a reader does not wait for: these
files can be made again at any time, so the system's memory will do. No TensorFlow is loaded.
"""

import os
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.attr_value_pb2 import AttrValue
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.node_def_pb2 import NodeDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from pawtune.data_pipeline.images.pictures import Pixels, encode_jpeg
from pawtune.models.families.family import Layer

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
        self._run = folder.name
        self._records = RecordWriter((folder / name).open("wb"))
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
        self._add(text_pb(tag, markdown), step)

    def add_layout(self, layout: Layout) -> None:
        """Says which curves share a chart in the custom-scalars tab."""
        categories = [
            layout_pb2.Category(
                title=category,
                chart=[
                    layout_pb2.Chart(title=title, multiline={"tag": tags})
                    for title, tags in charts.items()
                ],
            )
            for category, charts in layout.items()
        ]
        value = Summary.Value(
            tag=custom_scalar.CONFIG_SUMMARY_TAG,
            metadata=custom_scalar.create_summary_metadata(),
            tensor=make_tensor_proto(layout_pb2.Layout(category=categories).SerializeToString()),
        )
        self._add(Summary(value=[value]), 0)

    def add_columns(
        self,
        parameters: Mapping[str, type],
        metrics: Mapping[str, str],
        shown_first: Collection[str],
        discrete: Mapping[str, Sequence[str]],
    ) -> None:
        """Says which columns the HParams table has.

        Args:
            parameters: Names and their types: str, bool, or a number's.
            metrics: Tags of curves, whose last values are shown, and their headings.
            shown_first: Parameters that matter most.
            discrete: Words that a parameter takes: the table can then be filtered by them.
        """
        types = {str: api_pb2.DATA_TYPE_STRING, bool: api_pb2.DATA_TYPE_BOOL}
        # TensorBoard shows the first few parameters until others are ticked: by name those that are
        # marked as different, then the rest.
        experiment = api_pb2.Experiment(
            hparam_infos=[
                api_pb2.HParamInfo(
                    name=name,
                    type=types.get(kind, api_pb2.DATA_TYPE_FLOAT64),
                    domain_discrete=discrete.get(name),
                    differs=name in shown_first,
                )
                for name, kind in parameters.items()
            ],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=heading)
                for tag, heading in metrics.items()
            ],
        )
        self._add_hparams(hparams.EXPERIMENT_TAG, HParamsPluginData(experiment=experiment))

    def start_session(self, params: Mapping[str, Value], wall_time: float) -> None:
        """Makes this run a line of the HParams table."""
        self._add(hparams_pb(params, trial_id=self._run, start_time_secs=wall_time), 0)

    def end_session(self, succeeded: bool, wall_time: float) -> None:
        """Says how the run ended; TensorBoard knows success and failure only."""
        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=wall_time)
        self._add_hparams(hparams.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))

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
        self._records.flush()

    def close(self) -> None:
        """Lets readers see everything, and ends the file."""
        self._records.close()

    def _add_hparams(self, tag: str, data: HParamsPluginData) -> None:
        metadata = hparams.create_summary_metadata(data)
        value = Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)
        self._add(Summary(value=[value]), 0)

    def _add(self, content: Summary, step: int, wall_time: float | None = None) -> None:
        now = time.time() if wall_time is None else wall_time
        self._write(Event(wall_time=now, step=step, summary=content))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def remove_event_files(folder: Path) -> bool:
    """Removes a run's event files; says whether there were any."""
    found = list(folder.glob("events.out.tfevents.*"))
    for file in found:
        os.unlink(file)
    return bool(found)
