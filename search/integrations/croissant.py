"""The manifest of a run as Croissant JSON-LD: which image has which label, and in which split.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html (version 1.0). The file stands beside
`manifest.csv`, which it describes; the images themselves stay where they are.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pawtune.search.run import Run

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
COLUMNS = {  # of manifest.csv
    "path": ("sc:Text", "Where the image lies below the data's folder."),
    "label": ("sc:Text", "Its class."),
    "split": ("sc:Text", "train, validation or test; decided by content and seed."),
    "sha256": ("sc:Text", "Of the file."),
    "perceptual_hash": ("sc:Text", "Near duplicates have near hashes."),
    "group": ("sc:Text", "Duplicates and near duplicates share one, and a split."),
    "width": ("sc:Integer", "Pixels."),
    "height": ("sc:Integer", "Pixels."),
}


def describe_data(run: Run, license: str | None = None) -> dict[str, Any]:
    """The run's manifest as a Croissant data set.

    Args:
        run: The run.
        license: License of the images, as a URL; only their owner knows it.

    Raises:
        DataError: The manifest cannot be read.
    """
    manifest = run.manifest()
    content = (run.folder.root / "manifest.csv").read_bytes()
    header = content.split(b"\n", 1)[0].decode("utf-8").strip().split(",")
    counts = {split: sum(labels.values()) for split, labels in manifest.counts().items()}
    listed = ", ".join(f"{number} {split}" for split, number in counts.items())
    file = {
        "@type": "cr:FileObject",
        "@id": "manifest.csv",
        "name": "manifest.csv",
        "contentUrl": "manifest.csv",
        "encodingFormat": "text/csv",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": run.name,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": (
            f"Images of {len(manifest.class_names)} classes "
            f"({', '.join(manifest.class_names)}): {listed}. Splits by content: duplicates and "
            f"near duplicates stay on one side. Fingerprint {manifest.fingerprint}."
        ),
        "version": "1.0.0",
        **({"license": license} if license else {}),
        "distribution": [file],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "key": {"@id": "images/path"},
                "field": [_field(name) for name in COLUMNS if name in header],
            }
        ],
    }


def _field(name: str) -> Mapping[str, Any]:
    kind, meaning = COLUMNS[name]
    source = {"fileObject": {"@id": "manifest.csv"}, "extract": {"column": name}}
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "description": meaning,
        "dataType": kind,
        "source": source,
    }
