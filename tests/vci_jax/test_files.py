"""``vci_jax.read_features``: what people hand in, by format; and files that are refused."""

import gzip
import io
import json
import os
import pickle
import re
import sys
import zipfile

import numpy as np
import pytest
from weight_files import write_safetensors

import vci_jax
from vci_jax import cli, files

LABELS = np.arange(60) % 3
FEATURES = np.random.default_rng(0).normal(size=(60, 4)) + np.eye(3, 4)[LABELS]
NAMES = np.array(["cat", "dog", "eel"])[LABELS]


def library(name):
    return pytest.importorskip(name, reason=f"{name} reads this format where it is installed")


def npz(folder):
    np.savez(folder / "a.npz", features=FEATURES, labels=NAMES)
    return folder / "a.npz"


def npz_of_other_names(folder):
    np.savez_compressed(folder / "a.npz", embeddings=FEATURES, y=LABELS, mean=FEATURES[0])
    return folder / "a.npz"


def npz_without_names(folder):
    """Told by their dimensions; an object beside them is never opened."""
    np.savez(folder / "a.npz", FEATURES, LABELS, notes=np.array({}, object))
    return folder / "a.npz"


def npy_pair(folder):
    np.save(folder / "a_features.npy", FEATURES)
    np.save(folder / "a_labels.npy", LABELS)
    return folder / "a_features.npy"


def npy_of_letters(folder):
    np.save(folder / "X.npy", np.asfortranarray(FEATURES))
    np.save(folder / "y.npy", LABELS)
    return folder / "X.npy"


def folder_of_npy(folder):
    np.save(folder / "features.npy", FEATURES)
    np.save(folder / "labels.npy", LABELS)
    np.save(folder / "logits.npy", np.zeros((60, 1000)))
    return folder


def torch_dictionary(folder):
    torch = library("torch")
    features = torch.tensor(FEATURES, requires_grad=True)
    torch.save({"features": features, "labels": NAMES.tolist(), "epoch": 3}, folder / "a.pt")
    return folder / "a.pt"


def torch_pair(folder):
    torch = library("torch")
    torch.save((torch.tensor(FEATURES), torch.tensor(LABELS)), folder / "a.pth")
    return folder / "a.pth"


def torch_numpy(folder):
    """Arrays of NumPy, which torch.save pickles as NumPy does; text in an array of objects."""
    torch = library("torch")
    saved = {"features": FEATURES, "labels": NAMES.astype(object), "accuracy": np.float32(0.5)}
    torch.save(saved, folder / "a.pt")
    return folder / "a.pt"


def torch_numbers(folder):
    """A list of numbers, of which each is an array or a tensor."""
    torch = library("torch")
    numbers = [torch.tensor(k) if k else np.int64(k) for k in LABELS.tolist()]
    torch.save({"x": np.asfortranarray(FEATURES), "y": numbers}, folder / "a.pt")
    return folder / "a.pt"


def torch_legacy(folder):
    torch = library("torch")
    tree = {"test": {"features": torch.tensor(FEATURES), "labels": torch.tensor(LABELS)}}
    torch.save(tree, folder / "a.pth", _use_new_zipfile_serialization=False)
    return folder / "a.pth"


def torch_files(folder):
    torch = library("torch")
    torch.save(torch.tensor(FEATURES), folder / "features.pt")
    torch.save(torch.tensor(LABELS), folder / "labels.pt")
    return folder / "features.pt"


def safetensors(folder):
    library("safetensors")
    arrays = {"features": FEATURES, "labels": LABELS.astype(np.int32)}
    return write_safetensors(folder / "a.safetensors", arrays)


def csv(folder):
    """As pandas writes it: an index, a header, text in quotation marks."""
    rows = [",f0,f1,f2,f3,label"]
    rows += [f"{i},{','.join(map(repr, row.tolist()))},\"{name}\"" for i, (row, name) in
             enumerate(zip(FEATURES, NAMES, strict=True))]  # fmt: skip
    (folder / "a.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return folder / "a.csv"


def csv_without_header(folder):
    rows = np.column_stack([FEATURES, LABELS])
    np.savetxt(folder / "a.txt", rows, fmt=["%.17g"] * 4 + ["%d"], delimiter=";")
    return folder / "a.txt"


def text_of_spaces(folder):
    """As ``numpy.savetxt`` writes by itself."""
    np.savetxt(folder / "a.txt", np.column_stack([FEATURES, LABELS]), fmt="%.17g")
    return folder / "a.txt"


def parquet_columns(folder):
    library("pyarrow")
    pandas = library("pandas")
    table = pandas.DataFrame(FEATURES, columns=[f"f{i}" for i in range(4)])
    table.assign(label=pandas.Categorical(NAMES)).iloc[::-1].iloc[::-1].to_parquet(folder / "a.pq")
    os.rename(folder / "a.pq", folder / "a.parquet")
    return folder / "a.parquet"


def parquet_lists(folder):
    library("pyarrow")
    table = library("pandas").DataFrame({"path": NAMES, "embedding": list(FEATURES), "y": LABELS})
    table.to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def h5(folder):
    with library("h5py").File(folder / "a.h5", "w") as file:
        file["train/features"] = FEATURES.astype(">f8")
        file["train/labels"] = NAMES.tolist()
    return folder / "a.h5"


def zarr(folder, version=3):
    group = library("zarr").open_group(str(folder / "a.zarr"), mode="w", zarr_format=version)
    group["features"], group["labels"] = FEATURES, LABELS
    return folder / "a.zarr"


def zarr_2(folder):
    return zarr(folder, 2)


FORMATS = (
    npz, npz_of_other_names, npz_without_names, npy_pair, npy_of_letters, folder_of_npy,
    torch_dictionary, torch_pair, torch_numpy, torch_numbers, torch_legacy, torch_files,
    safetensors, csv, csv_without_header, text_of_spaces, parquet_columns, parquet_lists, h5,
    zarr, zarr_2,
)  # fmt: skip


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_numbers(tmp_path, write):
    """To the bit, in native byte order; and the same VCI, whatever the labels are called."""
    features, labels = vci_jax.read_features(write(tmp_path))
    np.testing.assert_array_equal(features, FEATURES)
    assert features.dtype == np.float64
    assert features.dtype.isnative
    np.testing.assert_array_equal(np.unique(labels, return_inverse=True)[1], LABELS)
    assert vci_jax.vci(features, labels) == vci_jax.vci(FEATURES, LABELS)


@pytest.mark.parametrize("kind", ["f2", ">f4", "<f8", "g", "u1", ">i8"])
def test_every_type_of_number_is_read(tmp_path, kind):
    """NumPy's own files keep float16 to long double, of either byte order."""
    rows = np.round(9 * np.abs(FEATURES)).astype(kind)
    np.savez(tmp_path / "a.npz", features=rows, labels=LABELS.astype(">u2"))
    features, labels = vci_jax.read_features(tmp_path / "a.npz")
    np.testing.assert_array_equal(features, rows)
    assert features.dtype == rows.dtype.newbyteorder("=")
    assert labels.dtype == np.uint16


def test_bfloat16_is_read(tmp_path):
    torch = library("torch")
    rows = torch.tensor(FEATURES).bfloat16()
    torch.save({"features": rows, "labels": LABELS.tolist()}, tmp_path / "a.pt")
    features, _ = vci_jax.read_features(tmp_path / "a.pt")
    np.testing.assert_array_equal(features, rows.float().numpy())


def test_npy_files_are_mapped(tmp_path):
    """Features larger than memory can be read in parts."""
    for write in (npy_pair, folder_of_npy):
        assert isinstance(vci_jax.read_features(write(tmp_path))[0], np.memmap)


def test_keys_choose_among_several(tmp_path):
    """``layer.2`` and ``layer.3`` in one file; a label of another name; a wrong key is refused."""
    layers = {"layer2": FEATURES, "layer3": 2 * FEATURES, "species": NAMES, "fold": LABELS}
    np.savez(tmp_path / "a.npz", **layers)
    with pytest.raises(vci_jax.VCIError, match=r"several arrays.*features; .*layer3 \[60, 4\]"):
        vci_jax.read_features(tmp_path / "a.npz")
    with pytest.raises(vci_jax.VCIError, match="no array 'layer4' for --features"):
        vci_jax.read_features(tmp_path / "a.npz", features="layer4")
    chosen = vci_jax.read_features(tmp_path / "a.npz", features="layer3", labels="species")
    np.testing.assert_array_equal(chosen[0], 2 * FEATURES)
    np.testing.assert_array_equal(chosen[1], NAMES)


def test_a_file_of_labels_is_named(tmp_path):
    np.save(tmp_path / "rows.npy", FEATURES)
    np.save(tmp_path / "species.npy", LABELS)
    with pytest.raises(vci_jax.VCIError, match="no labels beside it"):
        vci_jax.read_features(tmp_path / "rows.npy")
    for name in ("species", "species.npy"):
        _, labels = vci_jax.read_features(tmp_path / "rows.npy", labels=name)
        np.testing.assert_array_equal(labels, LABELS)


def test_columns_of_a_table_are_chosen(tmp_path):
    """A pattern of names; columns that number the rows or hold text are no features unasked."""
    path = tmp_path / "a.csv"
    path.write_text("id,path,a0,a1,kind,split\n7,x.png,1,2,cat,0\n8,y.png,3,4,dog,0\n")
    with pytest.raises(vci_jax.VCIError, match="column 'id' does not look like a feature"):
        vci_jax.read_features(path)
    features, labels = vci_jax.read_features(path, features="a*", labels="kind")
    assert features.tolist() == [[1, 2], [3, 4]]
    assert labels.tolist() == ["cat", "dog"]
    for keys, message in (
        ({"labels": "class"}, "no column 'class' for --labels; it has id, path, a0"),
        ({"features": "b*"}, "no column of features 'b*' beside the label 'split'"),
        ({"features": "*"}, "does not look like a feature"),
    ):
        with pytest.raises(vci_jax.VCIError, match=message.replace("*", r"\*")):
            vci_jax.read_features(path, **keys)


def test_labels_of_a_table(tmp_path):
    """Integers stay such, with -1 for none; 1.0 is a number; others are text."""
    path = tmp_path / "a.csv"
    for cells, expected in (
        (["3", "-1", "3"], [3, -1, 3]),
        (["1.0", "2.0", "1.0"], [1.0, 2.0, 1.0]),
        (["1", "b", " b"], ["1", "b", "b"]),
    ):
        path.write_text("x\ty\n" + "".join(f"0.5\t{cell}\n" for cell in cells))
        assert vci_jax.read_features(path)[1].tolist() == expected


def test_a_table_of_a_thousand_columns_is_read_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "a.csv", rng.normal(size=(500, 1000)), fmt="%.6f", delimiter=",")
    features, _ = vci_jax.read_features(tmp_path / "a.csv")
    assert features.shape == (500, 999)


@pytest.mark.parametrize(
    ("module", "write"),
    [
        ("torch", lambda path: path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")),
        ("safetensors", lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}")),
        ("h5py", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n")),
        ("pyarrow", lambda path: path.write_bytes(b"PAR1")),
        ("zarr", lambda path: (path.mkdir(), (path / "zarr.json").touch())),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, write):
    """With the command that installs it; the format is told by its first bytes, not its name."""
    for name in {module, *(name for name in sys.modules if name.startswith(f"{module}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    write(tmp_path / "mine")
    with pytest.raises(ImportError, match=f"mine needs {module}: pip install {module}"):
        vci_jax.read_features(tmp_path / "mine")


class Call:
    """Pickles as a call of ``os.mkdir``."""

    def __reduce__(self):
        return os.mkdir, ("called",)


def zipped(path, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return path


def header(shape):
    stream = io.BytesIO()
    entry = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, entry)
    return stream.getvalue()


def saved(**arrays):
    def write(path):
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    return write


def text(content):
    return lambda path: path.write_text(content)


def cut(write, length):
    """A file of which only the first bytes have arrived; a negative number of missing ones."""

    def shortened(path):
        data = write(path.parent).read_bytes()
        path.write_bytes(data[:length])

    return shortened


def tensors(begin, end, dtype="F64", shape=(2, 2)):
    def write(path):
        library("safetensors")
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        head = json.dumps({"features": entry}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(32))

    return write


def torch_tree(make):
    def write(path):
        torch = library("torch")
        torch.save(make(), path)

    return write


def empty_h5(path):
    h5py = library("h5py")
    with h5py.File(path, "w") as file:
        file["features"], file["labels"] = h5py.Empty("f8"), LABELS


def arrow(path, **columns):
    library("pyarrow.parquet").write_table(library("pyarrow").table(columns | {"y": LABELS}), path)


def doubled():
    tree = []
    for _ in range(40):
        tree = [tree, tree]
    return {"a": tree}


def circle():
    tree = {}
    tree["model"] = tree["state_dict"] = tree
    return tree


def pickled_codec(folder):
    zarr(folder, 2)
    place = folder / "a.zarr" / "features" / ".zarray"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"filters": [{"id": "pickle"}]}))
    return folder / "a.zarr"


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npz", lambda path: None, "no such file"),
        ("a.npz", text(""), "is empty"),
        ("a.npz", text("hello"), "not a readable npz file"),
        ("a.foo", text("hello"), "no format that can be read, which are"),
        ("a.pth", text("version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
        ("a.npz", cut(npz, 300), "not a readable npz file"),
        ("a.npz", saved(a=FEATURES), r"no array 'labels'; it holds a \[60, 4\]"),
        ("a.npz", saved(), "holds no arrays"),
        ("a.npz", saved(features=FEATURES, labels=np.array(["a", None], object)),
         r"Python objects, .*astype\(str\)"),
        ("a.npz", lambda path: zipped(path, **{"features.npy": header((10**11, 10)) + bytes(80),
                                               "labels.npy": header((0,))}), "has 80 bytes for"),
        ("a.npz", lambda path: zipped(path, **{"features.npy": b"\x93NUMPY\x01\x00\xff\xff" +
                                               b"{" * 65535}), "not a readable npz file"),
        ("a_features.npy", cut(npy_pair, 200), "not a readable npy file"),
        ("a.pkl", lambda path: path.write_bytes(pickle.dumps(Call())), "pickle, which can run any"),
        ("a.pth", lambda path: zipped(path, archive__data=b"", **{
            "archive/data.pkl": pickle.dumps(Call(), 2), "archive/version": "3\n"}), "torch|run"),
        ("a.pth", torch_tree(lambda: {"features": Call(), "labels": LABELS}), "more than tensors"),
        ("a.pth", torch_tree(lambda: {"features": FEATURES}), "no array 'labels'"),
        ("a.pth", torch_tree(lambda: {"features": FEATURES, "labels": LABELS.astype("M8[s]")}),
         "array of NumPy of the type 'M8'"),
        ("a.pth", torch_tree(lambda: {"features": FEATURES, "labels": np.array([Call()])}),
         "more than tensors"),
        ("a.pth", torch_tree(doubled), "holds no arrays"),
        ("a.pth", torch_tree(circle), "holds no arrays"),
        ("a.pt", cut(torch_dictionary, 700), "not a readable torch file"),
        ("a.pth", cut(torch_legacy, -30), "not a readable torch file"),
        ("a.safetensors", tensors(-32, 0), "not a readable safetensors file"),
        ("a.safetensors", tensors(0, 3200), "not a readable safetensors file"),
        ("a.safetensors", lambda path: (library("safetensors"), path.write_bytes(
            (2**60).to_bytes(8, "little") + b"{}")), "header too large"),
        ("a.csv", text("a,b,label\n"), "3 columns in its first row and 0"),
        ("a.csv", text("a,b,label\n1,2,x\n1,oops,y\n"), "'oops' to float64 at row 1, column 2"),
        ("a.csv", text("a,b,label\n1,2,x\n1,2,3,y\n"), "4 columns in line 3 and 3 in its first"),
        ("a.csv", text('a,b,label\n1,2,"x, y"\n1,2,3,"x, y"\n'), "4 columns in line 3 and 3"),
        ("a.csv", text("a b label\n1 2 x\n1 2 3 y\n"), "4 columns in line 3 and 3 in its first"),
        ("a.csv", text("\na,b,label\n1,2,x\n"), "begins with an empty line"),
        ("a.csv", text("a;label\n1,5;x\n"), "decimal comma, 1,5: write them with a point"),
        ("a.csv", text("a,b,label\n,2,x\n"), "could not convert string '' .* row 0, column 1"),
        ("a.csv", lambda path: path.write_text("a,b\n1,ä\n", encoding="latin-1"),
         "0xe4 is not UTF-8"),
        ("a.csv", lambda path: path.write_text("a,b\n1,ä\n", encoding="utf-16"), "UTF-8"),
        ("a.csv.gz", lambda path: path.write_bytes(gzip.compress(b"a,b\n")), "gunzip"),
        ("a.h5", lambda path: empty_h5(path), "no array 'features'"),
        ("a.parquet", lambda path: arrow(path, a=FEATURES.tolist(), b=FEATURES.tolist()),
         "2 columns of lists, a, b: choose one"),
        ("a.parquet", lambda path: arrow(path, a=[*FEATURES.tolist()[:-1], None]),
         "'a' has no list in row 59"),
        ("a.pt", torch_tree(lambda: {"features": [FEATURES, FEATURES], "labels": LABELS}),
         "features in a list of arrays: join them"),
        ("a.csv", text("a,b,label\n1,2,x\n1,2\n"), "invalid column index|columns"),
        ("a.csv", text("a,label\n1,3\n1,\n"), "no label in row 1"),
        ("a.csv", lambda path: path.write_bytes(bytes(range(255))), "not a readable csv file"),
        ("a.h5", cut(h5, 1500), "not a readable h5 file"),
        ("a.parquet", cut(parquet_lists, 300), "not a readable parquet file"),
        ("a.zarr", lambda path: pickled_codec(path.parent), "pickle"),
        ("a", lambda path: path.mkdir(), "holds no arrays"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, monkeypatch, capsys, name, write, message):
    """In one or two sentences that name the file, by the library and by the command."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(vci_jax.VCIError, match=message) as error:
        vci_jax.read_features(tmp_path / name)
    said = str(error.value)
    assert str(tmp_path / name) in said
    assert "\n" not in said
    assert len(said) < 600
    assert not os.path.exists("called")
    assert cli.main([str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == f"vci_jax: {said}\n"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": FEATURES.reshape(60, 2, 2), "labels": LABELS}, "pool feature maps"),
        ({"features": FEATURES, "labels": FEATURES[:, 0]}, "cut a regression target"),
        ({"features": FEATURES, "labels": LABELS[:50]}, r"shape \[50\] for 60 rows"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((3, 4))},
         r"\[D, K\] = \[4, 3\].*layout of torch.nn.Linear"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((4, 2))},
         r"labels lie outside 0 \.\. 1, the columns of the classifier"),
        ({"features": FEATURES, "labels": LABELS, "head_kernel": np.ones((7, 3))},
         "head of other features"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_measured_are_refused(tmp_path, capsys, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    assert cli.main([str(tmp_path / "a.npz")]) == 2
    shown = capsys.readouterr().err
    assert re.search(message, shown), shown
    assert shown.startswith(f"vci_jax: {tmp_path / 'a.npz'}: ")


def test_trees_of_weights_are_read(tmp_path):
    """As they are nested; only files of weights have such."""
    library("safetensors")
    write_safetensors(tmp_path / "a.safetensors", {"fc.weight": np.ones((3, 2), np.float32)})
    assert files.read_tree(tmp_path / "a.safetensors")["fc.weight"].shape == (3, 2)
    with pytest.raises(vci_jax.VCIError, match=r"torch\.save\(model"):
        files.read_tree(npz(tmp_path))
    torch = library("torch")
    torch.save({"model": {"fc.weight": torch.ones(3, 2)}}, tmp_path / "a.pth")
    assert files.read_tree(tmp_path / "a.pth")["model"]["fc.weight"].shape == (3, 2)


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        (3, {}, "name of a file, got int"),
        (None, {}, "name of a file, got NoneType"),
        ("a.csv", {"features": ["f0"]}, r"features= must be a name .*, got \['f0'\]"),
        ("a.csv", {"labels": 3}, "labels= must be a name .*, got 3"),
    ],
)
def test_what_is_no_name_is_refused(path, keys, message):
    with pytest.raises(vci_jax.VCIError, match=message):
        vci_jax.read_features(path, **keys)


@pytest.mark.parametrize(("path", "got"), [("", "''"), (7, "int")])
def test_what_is_no_path_is_said(path, got):
    with pytest.raises(vci_jax.VCIError, match=f"name of a file, got {got}"):
        vci_jax.read_features(path)
