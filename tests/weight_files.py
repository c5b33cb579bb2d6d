"""Files of weights as torch and safetensors write them, written without either."""

import json
import zipfile

import numpy as np

_SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_SAFETENSORS |= {"int64": "I64", "int32": "I32"}
_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"}


def write_safetensors(path, tensors):
    """As the format's page has it: length, JSON, bytes."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        span = [len(body), len(body) + value.nbytes]
        kind = _SAFETENSORS[value.dtype.name]
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": span}
        body += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def write_pth(path, tree):
    """As ``torch.save`` writes nested dictionaries of tensors: a pickle, and an entry a storage."""
    storages = []
    pickled = b"\x80\x02" + _pickled(tree, storages) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for number, values in enumerate(storages):
            archive.writestr(f"archive/data/{number}", values.tobytes())
    return path


def _pickled(value, storages):
    if isinstance(value, dict):
        items = b"".join(_pickled(k, storages) + _pickled(v, storages) for k, v in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, str):
        return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    storages.append(value)
    kind = _STORAGES[value.dtype.name].encode()
    key = str(len(storages) - 1).encode()
    strides = [step // value.itemsize for step in np.ascontiguousarray(value).strides]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n"
        + kind
        + b"\nU"
        + bytes([len(key)])
        + key
        + b"U\x03cpu"
        + _pickled(value.size, storages)
        + b"tQ"
        + _pickled(0, storages)
        + b"".join(
            b"(" + b"".join(_pickled(int(n), storages) for n in numbers) + b"t"
            for numbers in (value.shape, strides)
        )
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
